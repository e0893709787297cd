"""The end of a run: the kept weights are tested, once, and what is worth keeping is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file

from ftd.job import Completed
from jobs.features.views import ORIGINAL, SIXTEEN
from jobs.growth.structure import structures_in
from jobs.measure.averaging import mean_of
from jobs.measure.chance import NEAR_CHANCE, near_chance
from jobs.measure.details import keep_predictions
from jobs.measure.digest import state_sha256
from jobs.measure.evaluate import evaluate
from jobs.measure.memory import peak_memory_bytes
from jobs.measure.predictions import Predicted, Predictions
from jobs.measure.scoring import Logits, Scoring, named
from jobs.models.description import Description
from jobs.sources import WEIGHTS, checkpoint_name
from jobs.train.loop import Training
from jobs.train.state import Tensors, TrainingState

# further metrics of the kept weights; the last argument is a place to leave
Further = Callable[[Training, TrainingState, Callable[[], None]], Mapping[str, float]]


def conclude(
    training: Training,
    state: TrainingState,
    layers: str,
    also: Mapping[str, float],
    *,
    source: bool = False,
    further: Further | None = None,
) -> Completed:
    """Test the kept weights, keep predictions and weights as artifacts, and sum the run up.

    ``test/...`` are the kept weights' metrics; where the last weights are others, theirs are
    ``test_last/...``; `also` are known beforehand.  A `source` that says no more than chance about
    its images is flagged.  Interrupted, it is done again from the end of training.
    """
    context, listing, splits = training.context, training.loader.images.listing, training.splits
    trained = state.show_average()

    def pause() -> None:
        context.checkpoint(state.step, lambda: state.writers(trained))

    metrics = {}
    if state.best is not None and state.best_step < state.step and not state.diverged:
        last = _logits(training, state, "test", pause)
        labels = listing.labels[splits.test]
        metrics = named("test_last", _metrics(training.scoring, last, labels))
        state.load_weights(state.best)
    logits = {name: _logits(training, state, name, pause) for name in ("val", "test")}
    if not all(np.isfinite(found).all() for found in logits.values()):
        state.diverged = True
        logits = {name: np.zeros_like(found) for name, found in logits.items()}
    for name, found in logits.items():
        if len(found):
            labels = listing.labels[splits.by_name()[name]]
            metrics |= named(name, _metrics(training.scoring, found, labels))
    if further is not None:
        metrics |= further(training, state, pause)
    for name, value in metrics.items():
        if state.diverged or not name.startswith("val/"):  # those stand at their own step
            context.metric(name, value, state.step)

    keep_predictions(context, training.scoring, _predictions(training, logits))
    context.timing("peak_memory_bytes", peak_memory_bytes(context.device), state.step)
    final = state.network.state()
    kept = {checkpoint_name(step): final | tensors for step, tensors in state.kept.items()}
    for file, tensors in {WEIGHTS: final, **kept}.items():
        context.artifact(file, partial(_write_weights, training, state, layers, tensors))
    flags = training.flags(state)
    if source and not state.diverged and _near_chance(training, logits):
        flags += (NEAR_CHANCE,)
    return Completed(
        metrics={**also, **training.final_metrics(state), **metrics},
        state_sha256=state_sha256(final),
        num_steps=state.step,
        flags=flags,
    )


def _predictions(training: Training, logits: Mapping[str, Logits]) -> Predictions:
    images = training.loader.images
    members = training.splits.by_name()
    splits = {name: Predicted.of(images, members[name], said) for name, said in logits.items()}
    return Predictions.of(images.listing.class_names, training.scoring, splits)


def _logits(
    training: Training, state: TrainingState, split: str, pause: Callable[[], None]
) -> Logits:
    """What the network says about a split; infinite after divergence, without asking it."""
    indices, loader = training.splits.by_name()[split], training.loader
    if state.diverged:
        return np.full((len(indices), len(state.network.class_names)), np.inf, np.float32)
    views = SIXTEEN if split == "test" and training.params.test_views == 16 else (ORIGINAL,)
    found = [
        evaluate(state.network, loader, indices, training.context.device, pause, view.look)
        for view in views
    ]
    if len(found) == 1 or not all(np.isfinite(logits).all() for logits in found):
        return found[0]
    return mean_of([Predicted.of(loader.images, indices, logits) for logits in found]).logits


def _metrics(scoring: Scoring, logits: Logits, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Metrics of logits; those of chance where all are equal or some are not finite."""
    if not np.isfinite(logits).all() or not logits.any():
        return scoring.chance(labels)
    return scoring.metrics(logits, labels)


def _near_chance(training: Training, logits: Mapping[str, Logits]) -> bool:
    """Whether the images that weights are judged by, validation or else test, tell nothing."""
    name = "val" if len(logits["val"]) else "test"
    labels = training.loader.images.listing.labels[training.splits.by_name()[name]]
    return near_chance(logits[name], labels)


def _write_weights(
    training: Training, state: TrainingState, layers: str, tensors: Tensors, path: Path
) -> None:
    """All `tensors` of the network, with what is needed to use them."""
    network, loader = state.network, training.loader
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    described = Description(
        network.model,
        layers,
        tuple(network.class_names),
        training.scoring.multi_label,
        loader.preprocessing,
        loader.crop_size,
        loader.images.size,
        grown=[asdict(structure) for structure in structures_in(shapes)],
    )
    here = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_file(here, path, described.metadata)
