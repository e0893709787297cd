"""Paired differences between two levels of a factor.

Two runs are a pair when they agree in every other factor and in the replicate, so that they share
split, subset, order and initial weights.  Pairs of one replicate are no independent evidence: they
are averaged, and the replicate is the unit that a mean, a spread and an interval count.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ftd.stats.observations import Label, Observation, by_level, same
from ftd.stats.spread import Interval, Spread, interval, spread

MAX_LEVELS_ALL_PAIRS = 6  # 15 contrasts; above, every level against the first
_ROUNDING = 2.0**-50  # of two values: what is less in their difference is left by arithmetic


@dataclass(frozen=True)
class Contrast:
    """Level `level` minus level `baseline`; `difference` is over replicates.

    `pairs` are the run ids (level, baseline) that entered; `num_possible` counts the pairs that
    would exist had every run a value; `num_identical` those that are one and the same run.
    """

    level: Label
    baseline: Label
    difference: Spread
    interval: Interval | None
    pairs: tuple[tuple[int, int], ...]
    num_possible: int
    num_identical: int


def contrasts(observations: Sequence[Observation], factor: str) -> list[Contrast]:
    """All pairs of levels of a factor; with more than six, each level against the first.

    The first level, not the best one: picking the best from the same data makes every difference
    to it look larger than it is.
    """
    found = [(level, _placed(seen, factor)) for level, seen in by_level(observations, factor)]
    if len(found) <= MAX_LEVELS_ALL_PAIRS:
        chosen = [(one, baseline) for baseline, one in combinations(found, 2)]
    else:
        chosen = [(one, found[0]) for one in found[1:]]
    return [_contrast(*one, *baseline) for one, baseline in chosen]


_Placed = Mapping[tuple[object, ...], Observation]


def _placed(observations: Sequence[Observation], factor: str) -> _Placed:
    """The observations of one level by all that makes a pair: other factors and replicate."""
    return {_place(seen, factor): seen for seen in observations}


def _place(seen: Observation, factor: str) -> tuple[object, ...]:
    rest = (f"{name}={same(label)}" for name, label in seen.factors.items() if name != factor)
    return (seen.replicate, *sorted(rest))


def _contrast(level: Label, ones: _Placed, baseline: Label, others: _Placed) -> Contrast:
    by_replicate: dict[int, list[float]] = defaultdict(list)
    pairs = []
    num_possible = num_identical = 0
    scale = 0.0
    for place, one in ones.items():
        other = others.get(place)
        if other is None:
            continue
        num_possible += 1
        if one.value is None or other.value is None:
            continue
        by_replicate[one.replicate].append(one.value - other.value)
        scale = max(scale, abs(one.value), abs(other.value))
        pairs.append((one.run_id, other.run_id))
        num_identical += one.run_id == other.run_id
    means = [statistics.fmean(by_replicate[key]) for key in sorted(by_replicate)]
    found = _unrounded(spread(means), scale)
    return Contrast(
        level=level,
        baseline=baseline,
        difference=found,
        interval=interval(found),
        pairs=tuple(pairs),
        num_possible=num_possible,
        num_identical=num_identical,
    )


def _unrounded(found: Spread, scale: float) -> Spread:
    """`found` of differences between values up to `scale`, without what rounding left of a 0."""
    mean, sd = (
        0.0 if value is not None and abs(value) < _ROUNDING * scale else value
        for value in (found.mean, found.sd)
    )
    return replace(found, mean=mean, sd=sd)
