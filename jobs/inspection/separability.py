"""How far the classes lie apart in a representation, measured by their spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.floating]

BLOCK = 1024  # images that are held in float64 at once


@dataclass(frozen=True)
class Scatter:
    """Mean squared distances: of images from their class's mean, of those from the whole mean."""

    within: float
    between: float

    @property
    def separability(self) -> float:
        """``between`` / ``within``; infinite where every class is a point, NaN where all are one.

        The ratio of the traces of Fisher's scatter matrices (Fukunaga: Introduction to statistical
        pattern recognition, 1990, section 10.2).
        """
        if self.within > 0:
            return self.between / self.within
        return float("inf") if self.between > 0 else float("nan")


def scatter(features: Matrix, labels: Labels) -> Scatter:
    """The scatter of `features` (N, D) by class `labels` (int64, N; any numbers from 0).

    With class means mu_k over n_k images and the whole mean mu: within = 1/N sum_i ||f_i - mu_k||^2
    and between = 1/N sum_k n_k ||mu_k - mu||^2; together they are the mean squared distance from
    mu.  Summed in float64, a block of images at a time.
    """
    present, labels = np.unique(labels, return_inverse=True)
    counts = np.bincount(labels, minlength=len(present))
    means = np.zeros((len(present), features.shape[1]))
    for start in range(0, len(features), BLOCK):
        np.add.at(means, labels[start : start + BLOCK], features[start : start + BLOCK])
    means /= counts[:, None]
    within = sum(
        float(((features[start : start + BLOCK] - means[labels[start : start + BLOCK]]) ** 2).sum())
        for start in range(0, len(features), BLOCK)
    )
    share = counts / len(features)
    between = float(share @ ((means - share @ means) ** 2).sum(axis=1))
    return Scatter(within / len(features), between)
