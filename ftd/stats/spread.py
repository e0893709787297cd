"""Mean, spread, and the interval of a mean."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

MIN_FOR_INTERVAL = 3  # from two values Student's t gives +-6.4 sd: a number that only misleads
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """`n` values: their mean (None of no value) and sample standard deviation (None below two)."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Interval:
    """Where a mean lies, in the values' unit, at the stated confidence (0 to 1)."""

    low: float
    high: float
    confidence: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (n - 1 in the denominator) of finite `values`."""
    if not values:
        return Spread(0, None, None)
    if all(value == values[0] for value in values):  # exact, where rounding would leave 1e-17
        return Spread(len(values), values[0], 0.0 if len(values) > 1 else None)
    return Spread(len(values), statistics.fmean(values), statistics.stdev(values))


def unit_means(values: Iterable[tuple[Hashable, float]]) -> list[float]:
    """The mean of each unit's values: what is repeated inside a unit counts once."""
    by_unit: dict[Hashable, list[float]] = defaultdict(list)
    for unit, value in values:
        by_unit[unit].append(value)
    return [statistics.fmean(some) if len(some) > 1 else some[0] for some in by_unit.values()]


def interval(found: Spread, confidence: float = CONFIDENCE) -> Interval | None:
    """Student's t interval of a mean, mean +- t(n - 1) sd / sqrt(n); None below three values.

    The values must be independent of one another (Student, "The probable error of a mean",
    Biometrika 6, 1908).
    """
    if found.n < MIN_FOR_INTERVAL or found.mean is None or found.sd is None:
        return None
    from scipy.special import stdtrit  # a third of a second to load, needed from here on only

    half = float(stdtrit(found.n - 1, (1 + confidence) / 2)) * found.sd / math.sqrt(found.n)
    return Interval(found.mean - half, found.mean + half, confidence)
