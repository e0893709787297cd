"""What guessing would get right, and whether a network does better."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

NEAR_CHANCE = "near_chance"  # the flag of a network to start from that tells nothing apart

Labels = npt.NDArray[np.int64]


def chance(labels: Labels) -> float:
    """The share of `labels` (N,) or (N, K) that is right when the commonest answer is given always.

    With several labels per image, the commoner answer for each class.
    """
    if labels.ndim == 2:
        return float(np.maximum(labels.mean(axis=0), 1 - labels.mean(axis=0)).mean())
    return float(np.bincount(labels).max() / len(labels))


def within_error(right: float, share: float, num_labels: int) -> bool:
    """Whether a share `right` of `num_labels` answers is no more than chance, `share`, and one
    standard error of it."""
    return right <= share + math.sqrt(share * (1 - share) / num_labels)


def near_chance(logits: npt.NDArray[np.float32], labels: Labels) -> bool:
    """Whether `logits` (N, K) tell the `labels` no better than chance, within a standard error."""
    said = logits > 0 if labels.ndim == 2 else logits.argmax(axis=1)
    return within_error(float((said == labels).mean()), chance(labels), labels.size)
