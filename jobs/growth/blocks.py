"""What old and new units of a grown network know, each block by itself and both together.

Wang, Ramanan, Hebert (CVPR 2017, figure 6): classifiers on fc7 alone, on fc7+ alone and on both.
Here ridge regressions on what the classifier or fc_a reads, fitted to the training images without
augmentation; the penalty is chosen by the validation images, where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from jobs.data.keyed import Indices
from jobs.growth.parts import Generation
from jobs.growth.structure import ROOT
from jobs.growth.surgery import num_growths
from jobs.measure.evaluate import BATCH_SIZE
from jobs.measure.scoring import named
from jobs.models.network import Network
from jobs.solvers import ridge
from jobs.solvers.linear import Linear
from jobs.train.loop import Training
from jobs.train.state import TrainingState

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # of features with a mean square of 1
UNCHOSEN = 10.0  # the penalty without validation images
METRICS = ("top1", "balanced_accuracy", "auroc", "map")  # which need no probabilities

Features = npt.NDArray[np.float64]


def block_metrics(
    training: Training, state: TrainingState, pause: Callable[[], None]
) -> Mapping[str, float]:
    """``test_old/...``, ``test_new/...``, ``test_both/...`` of the network's latest growth.

    `pause` is called after each batch and may raise to leave.  Those of chance after divergence.
    """
    labels = training.loader.images.listing.labels
    splits = training.splits.by_name()
    if state.diverged or not num_growths(state.network.module):
        chance = training.scoring.chance(labels[splits["test"]])
        return {
            name: value
            for block in ("old", "new", "both")
            for name, value in named(f"test_{block}", comparable(chance)).items()
        }
    seen = {name: _blocks(training, state.network, splits[name], pause) for name in splits}
    found: dict[str, float] = {}
    for block in ("old", "new", "both"):
        features = {name: _part(parts, block) for name, parts in seen.items()}
        found |= named(f"test_{block}", _fitted(training, features, block))
    return found


def _blocks(
    training: Training, network: Network, indices: Indices, pause: Callable[[], None]
) -> tuple[Features, Features]:
    """What the old block and the new one say about images: (N, D) and (N, S)."""
    generation = network.module.get_submodule(f"{ROOT}.{num_growths(network.module)}")
    assert isinstance(generation, Generation)
    heard: list[tuple[torch.Tensor, torch.Tensor]] = []
    generation.listener = lambda old, new: heard.append((old.double().cpu(), new.double().cpu()))
    network.eval()
    try:
        with torch.inference_mode():
            batch_size = BATCH_SIZE[training.context.device]
            for batch in training.loader.evaluation(indices, batch_size):
                network(batch.images)
                pause()
    finally:
        generation.listener = None
    if not heard:
        return np.empty((0, 0)), np.empty((0, 0))
    old, new = (torch.cat(parts).numpy() for parts in zip(*heard, strict=True))
    return old, new


def _part(parts: tuple[Features, Features], block: str) -> Features:
    if block == "both":
        return np.concatenate(parts, axis=1)
    return parts[0] if block == "old" else parts[1]


def _fitted(training: Training, features: Mapping[str, Features], block: str) -> dict[str, float]:
    """Metrics of the test images, of the classifier that a block gives."""
    scoring = replace(training.scoring, by_response=True)
    splits = training.splits.by_name()
    labels = {
        name: training.loader.images.listing.labels[indices] for name, indices in splits.items()
    }
    size = float(np.sqrt((features["train"] ** 2).mean())) or 1.0  # fitted to training images too
    chooses = len(labels["val"]) > 0
    penalties = PENALTIES if chooses else (UNCHOSEN,)
    select = "map" if scoring.multi_label else "top1"
    best: tuple[float, float, dict[str, float]] | None = None
    fitted = ridge.fit(features["train"] / size, labels["train"], scoring.num_classes, penalties)
    for penalty, plane in zip(penalties, fitted, strict=True):

        def metrics(split: str, plane: Linear = plane) -> dict[str, float]:
            scores = plane.scores(plane.responses(features[split] / size))
            return comparable(scoring.metrics(scores.astype(np.float32), labels[split]))

        value = metrics("val").get(select, 0.0) if chooses else 0.0
        if best is None or value > best[0]:
            best = value, penalty, metrics("test")
    assert best is not None
    training.context.note(
        "block", block=block, fit_set="train", chosen_on="val" if chooses else "", penalty=best[1]
    )
    return best[2]


def comparable(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of `metrics` that scores of any size have."""
    return {name: value for name, value in metrics.items() if name in METRICS}
