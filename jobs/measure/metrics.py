"""How good predictions are: top-1, balanced accuracy, AUROC, negative log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def measures(logits: npt.NDArray[np.float32], labels: Labels) -> dict[str, float]:
    """All metrics of finite `logits` (N, K) against `labels` (N,), N >= 1; AUROC only for K = 2."""
    log_p = log_probabilities(logits)
    predicted = logits.argmax(axis=1)
    found = {
        "top1": float((predicted == labels).mean()),
        "balanced_accuracy": balanced_accuracy(predicted, labels),
        "nll": float(-log_p[np.arange(len(labels)), labels].mean()),
    }
    if logits.shape[1] == 2:
        scores = logits[:, 1].astype(np.float64) - logits[:, 0]
        found["auroc"] = auroc(scores, labels == 1)
    return found


def chance(num_classes: int) -> dict[str, float]:
    """What :func:`measures` expects of a predictor that knows nothing: uniform over the classes."""
    found = {
        "top1": 1 / num_classes,
        "balanced_accuracy": 1 / num_classes,
        "nll": math.log(num_classes),
    }
    return found | ({"auroc": 0.5} if num_classes == 2 else {})


def log_probabilities(logits: npt.NDArray[np.float32]) -> Floats:
    """Log-softmax over the classes, computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def balanced_accuracy(predicted: Labels, labels: Labels) -> float:
    """Mean over the classes that occur of the share recognised (mean per-class recall)."""
    occurring = np.bincount(labels)
    right = np.bincount(labels[predicted == labels], minlength=len(occurring))
    present = occurring > 0
    return float((right[present] / occurring[present]).mean())


def auroc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counting half.

    The Mann-Whitney statistic over mean ranks; both classes must occur.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    num_positive = int(positive.sum())
    num_negative = len(scores) - num_positive
    above = mean_rank[place][positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def named(split: str, found: Mapping[str, float]) -> dict[str, float]:
    """Metrics under the names they are recorded by, such as ``val/top1``."""
    return {f"{split}/{name}": value for name, value in found.items()}
