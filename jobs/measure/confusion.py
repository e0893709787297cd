"""What is taken for what: confusion matrix, recall and F1 per class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def confusion(predicted: Labels, labels: Labels, num_classes: int) -> Labels:
    """Counts (int64, (K, K)): row is the true class, column the predicted one."""
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def recalls(counts: Labels) -> Floats:
    """Per class the share recognised, of a confusion matrix; NaN where a class does not occur."""
    occurring = counts.sum(axis=1)
    return np.where(occurring > 0, np.diag(counts) / np.maximum(occurring, 1), np.nan)


def f1_scores(true_positive: Labels, predicted: Labels, occurring: Labels) -> Floats:
    """2 TP / (predicted + occurring) per class; NaN for one neither predicted nor occurring."""
    total = predicted + occurring
    return np.where(total > 0, 2 * true_positive / np.maximum(total, 1), np.nan)


def macro(values: Floats) -> float:
    """Mean over the classes that have a value."""
    return float(values[~np.isnan(values)].mean())
