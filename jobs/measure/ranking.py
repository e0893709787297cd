"""How well scores rank the images of one class above the others: AUROC and average precision.

Each takes scores (N,) and which samples are positive (bool, N); at least one must be positive and,
for AUROC, one negative.  Samples of equal score are told apart by nothing: they count together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Positive = npt.NDArray[np.bool_]

VOC07_RECALLS = np.arange(11) / 10


def auroc(scores: Floats, positive: Positive) -> float:
    """Probability that a positive scores above a negative, ties counting half.

    The Mann-Whitney statistic over mean ranks.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    num_positive = int(positive.sum())
    num_negative = len(scores) - num_positive
    above = mean_rank[place][positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def average_precision(scores: Floats, positive: Positive) -> float:
    """All-point average precision: sum over thresholds of (R_n - R_(n-1)) P_n, not interpolated."""
    precision, recall = _curve(scores, positive)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def voc07_average_precision(scores: Floats, positive: Positive) -> float:
    """Mean over the recalls 0, 0.1 ... 1 of the best precision at that recall or more.

    The 11-point measure of Everingham et al., The Pascal visual object classes (VOC) challenge,
    IJCV 2010, section 4.2.
    """
    precision, recall = _curve(scores, positive)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # recall is k / num_positive: compared a little below, as 3 / 10 is not less than 0.3
    places = np.searchsorted(recall, VOC07_RECALLS - 1e-9)
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
    return odds


def _curve(scores: Floats, positive: Positive) -> tuple[Floats, Floats]:
    """Precision and recall at each distinct score, the highest first (recall ascends to 1)."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(positive[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # of the samples of one score
    taken = np.flatnonzero(last) + 1
    return right[last] / taken, right[last] / right[-1]
