"""How well scores rank the images of one class above the others: AUROC and average precision.

Samples of equal score are told apart by nothing: they count together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Positive = npt.NDArray[np.bool_]

VOC07_RECALLS = np.arange(11) / 10


@dataclass(frozen=True)
class Ranking:
    """Samples by descending score: ``taken`` of them, ``right`` of these positive (float64, at
    each distinct score).  At least one is positive and, for AUROC, one negative."""

    right: Floats
    taken: Floats

    @classmethod
    def of(cls, scores: Floats, positive: Positive) -> Ranking:
        """By scores (N,) of samples, of which some are positive (bool, N)."""
        order = np.argsort(-scores)  # whatever order equal scores have
        right = np.cumsum(positive[order])
        last = np.append(np.diff(scores[order]) != 0, True)  # of the samples of one score
        taken = np.flatnonzero(last) + 1
        return cls(right[last].astype(np.float64), taken.astype(np.float64))

    @property
    def auroc(self) -> float:
        """Probability that a positive scores above a negative, ties counting half."""
        passed = self.taken - self.right  # negatives of this score or above
        num_negative, num_positive = passed[-1], self.right[-1]
        below = num_negative - (passed + np.concatenate([[0.0], passed[:-1]])) / 2
        return float((np.diff(self.right, prepend=0.0) * below).sum() / num_negative / num_positive)

    @property
    def average_precision(self) -> float:
        """All-point: sum over thresholds of (R_n - R_(n-1)) P_n, not interpolated."""
        gained = np.diff(self.right, prepend=0.0) / self.right[-1]
        return float((gained * self.right / self.taken).sum())

    @property
    def voc07_average_precision(self) -> float:
        """Mean over the recalls 0, 0.1 ... 1 of the best precision at that recall or more.

        The 11-point measure of Everingham et al., The Pascal visual object classes (VOC)
        challenge, IJCV 2010, section 4.2.
        """
        best = np.maximum.accumulate((self.right / self.taken)[::-1])[::-1]
        # recall is k / num_positive: compared a little below, as 3 / 10 is not less than 0.3
        places = np.searchsorted(self.right / self.right[-1], VOC07_RECALLS - 1e-9)
        return float(best[places].mean())


def log_odds(logits: npt.NDArray[np.float32]) -> Floats:
    """Per class log p / (1 - p) of the softmax of `logits` (N, K), K >= 2; float64, (N, K).

    Ranks as the probability does, and still tells apart what rounds to a probability of 1.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    rows = np.arange(len(logits))
    first = logits.argmax(axis=1)
    others = shifted.copy()
    others[rows, first] = -np.inf
    second = others.max(axis=1, keepdims=True)
    rest = np.exp(others - second).sum(axis=1, keepdims=True)  # of all but the first, in seconds
    odds = others - np.log1p(np.maximum(rest * np.exp(second) - np.exp(others), 0))
    odds[rows, first] = -(second + np.log(rest))[:, 0]
    return np.asarray(odds)
