"""What the name of a metric says: its split, and which direction is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

SMALLER_IS_BETTER = frozenset({"nll", "loss", "bce", "ece", "brier", "error", "mse", "mae"})


def smaller_is_better(name: str) -> bool:
    """Whether the smaller value of the metric ``split/name`` is the better one.

    Losses and errors; and distances: what is nearer transfers better.
    """
    split, _, rest = name.rpartition("/")
    return split == "distance" or rest in SMALLER_IS_BETTER


def goodness(value: float, name: str) -> float:
    """`value` of the metric `name`, turned so that larger is better; NaN is worse than all."""
    if math.isnan(value):
        return -math.inf
    return -value if smaller_is_better(name) else value


def best(values: Sequence[float], name: str) -> int:
    """The index of the best of `values` of the metric `name`; of several, the first."""
    return max(range(len(values)), key=lambda index: goodness(values[index], name))
