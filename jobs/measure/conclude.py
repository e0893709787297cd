"""The end of a run: the kept weights are tested, once, and everything worth keeping is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file

from ftd.job import Completed
from jobs.measure.digest import state_sha256
from jobs.measure.evaluate import evaluate
from jobs.measure.metrics import chance, measures, named
from jobs.measure.predictions import write_predictions
from jobs.models.network import Network
from jobs.sources import Preprocessing
from jobs.train.loop import Training
from jobs.train.state import TrainingState

Logits = npt.NDArray[np.float32]


def conclude(training: Training, state: TrainingState, layers: str) -> Completed:
    """Test the kept weights, keep predictions and weights as artifacts, and sum the run up.

    ``test/...`` are the kept weights' metrics; where the last weights are others, theirs are
    ``test_last/...``.  Interrupted, it is done again from the end of training.
    """
    context, network = training.context, state.network
    metrics = training.final_metrics(state)
    trained = {name: tensor.clone() for name, tensor in state.weights().items()}

    def pause() -> None:
        context.checkpoint(state.step, lambda: state.writers(trained))

    test = training.splits.test
    if state.best is not None and state.best_step != state.step and not state.diverged:
        _, found = _tested(training, state, "test", pause)
        metrics |= named("test_last", found)
        state.load_weights(state.best)
    val_logits, found = _tested(training, state, "val", pause)
    metrics |= named("val", found)
    test_logits, found = _tested(training, state, "test", pause)
    metrics |= named("test", found)
    for name, value in metrics.items():
        if not name.startswith(("train/", "val/")):  # those have their rows from training
            context.metric(name, value, state.step)
    predictions = {"val": (training.splits.val, val_logits), "test": (test, test_logits)}
    listing = training.loader.images.listing
    context.artifact(
        "predictions.csv",
        lambda path: write_predictions(path, listing, predictions),
    )
    context.artifact(
        "weights.safetensors",
        partial(_write_weights, network=network, layers=layers, wanted=training.loader.wanted),
    )
    ...


def _tested(
    training: Training, state: TrainingState, split: str, pause: Callable[[], None]
) -> tuple[Logits, dict[str, float]]:
    """Logits and metrics of a split; of a predictor at chance after divergence."""
    ...
