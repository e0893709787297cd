"""Rounds in the course of training: which images are hard now, by what predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from jobs.borrowing.hard import Judged, Levels
from jobs.borrowing.source_side import SourceSide
from jobs.data.batches import Loader
from jobs.data.keyed import Indices, keyed_order
from jobs.growth.reading import Reading
from jobs.measure.evaluate import evaluate, shown
from jobs.models.network import Network
from jobs.params.joint import HardParams
from jobs.params.solvers import SolverParams
from jobs.solvers import logistic

Logits = npt.NDArray[np.floating]

PENALTY = 1.0  # C of the classifiers that are fitted anew, on features of mean 0 and mean square 1


@dataclass(frozen=True)
class Rounds:
    """The rounds of a training; one comes behind each of the steps ``ends``."""

    wanted: HardParams
    ends: tuple[int, ...]
    side: SourceSide
    seed: int

    @property
    def levels(self) -> Levels:
        """Of the target's training images: int64, N."""
        return self.side.levels.cpu().numpy()

    @property
    def last_end(self) -> int:
        """The step behind which the latest round came; 0 before the first."""
        done = int(self.side.num_rounds)
        return self.ends[done - 1] if done else 0

    def is_due(self, step: int) -> bool:
        """Whether with `step` steps done a round has to be done."""
        return int(self.side.num_rounds) < sum(end <= step for end in self.ends)

    def take(
        self,
        network: Network,
        reading: Reading,
        loader: Loader,
        train: Indices,
        device: str,
        pause: Callable[[], None],
    ) -> Judged:
        """Raise the levels of the samples `train` that are hard for `network`.

        `pause` is called often, before anything changes, and may raise to leave.
        """
        labels = loader.images.listing.labels[train]
        if self.wanted.predictions == "training":
            logits: Logits = evaluate(network, loader, train, device, pause)
        else:
            features = _features(network, reading, loader, train, device, pause)
            folds = fold_of(loader, train, self.wanted.folds, self.seed)
            logits = cross_fitted(features, labels, folds, len(network.class_names), pause)
        judged = Judged.of(logits, labels, self.wanted)
        raised = judged.raised(self.levels, self.wanted)
        self.side.levels.copy_(torch.from_numpy(raised))
        self.side.num_rounds += 1
        return judged


def fold_of(loader: Loader, train: Indices, num_folds: int, seed: int) -> Indices:
    """The fold (0..num_folds-1) of each of the samples `train`, drawn by content within classes."""
    labels, digests = loader.images.listing.labels[train], loader.images.digests[train]
    folds = np.empty(len(train), np.int64)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        order = members[keyed_order(digests[members], "fold", seed)]
        folds[order] = np.arange(len(order)) % num_folds
    return folds


def cross_fitted(
    features: npt.NDArray[np.float64],
    labels: Indices,
    folds: Indices,
    num_classes: int,
    pause: Callable[[], None],
) -> Logits:
    """Logits (N, `num_classes`) of each sample, of a logistic regression on the other folds.

    `features` are (N, D); where some are not finite, so are all logits.
    """
    logits = np.full((len(labels), num_classes), np.nan)
    if not np.isfinite(features).all():
        return logits
    solver = SolverParams(kind="logistic", C=[PENALTY])
    for fold in np.unique(folds).tolist():
        others, own = folds != fold, folds == fold
        if others.any():
            centred = features - features[others].mean(axis=0)
            centred /= float(np.sqrt((centred[others] ** 2).mean())) or 1.0
            (fitted,) = logistic.fit(centred[others], labels[others], num_classes, solver)
            logits[own] = fitted.scores(fitted.responses(centred[own]))
        pause()
    return logits


def _features(
    network: Network,
    reading: Reading,
    loader: Loader,
    train: Indices,
    device: str,
    pause: Callable[[], None],
) -> npt.NDArray[np.float64]:
    """What the classifier reads of each of the samples `train`: (N, D)."""
    batches = shown(network, loader, train, device, pause)
    found = [reading.latest().double().cpu() for _ in batches]
    return np.asarray(torch.cat(found).numpy())
