"""Paired differences between two levels of a factor.

Two runs are a pair when they agree in every other factor and in the replicate, so that they share
split, subset, order and initial weights.  Pairs of one replicate are no independent evidence: they
are averaged, and the replicate is the unit that a mean, a spread and an interval count.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from ftd.stats.observations import Label, Observation, at_level, levels, same
from ftd.stats.spread import Interval, Spread, interval, spread

MAX_LEVELS_ALL_PAIRS = 6  # 15 contrasts; above, every level against the first


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
    found = levels(observations, factor)
    if len(found) <= MAX_LEVELS_ALL_PAIRS:
        chosen = [(level, baseline) for baseline, level in combinations(found, 2)]
    else:
        chosen = [(level, found[0]) for level in found[1:]]
    return [contrast(observations, factor, level, baseline) for level, baseline in chosen]


def contrast(
    observations: Sequence[Observation], factor: str, level: Label, baseline: Label
) -> Contrast:
    """The paired difference `level` minus `baseline` of one factor."""
    by_replicate: dict[int, list[float]] = defaultdict(list)
    pairs = []
    num_possible = num_identical = 0
    for one, other in _matched(observations, factor, level, baseline):
        num_possible += 1
        if one.value is None or other.value is None:
            continue
        by_replicate[one.replicate].append(one.value - other.value)
        pairs.append((one.run_id, other.run_id))
        num_identical += one.run_id == other.run_id
    found = spread([statistics.fmean(by_replicate[key]) for key in sorted(by_replicate)])
    return Contrast(
        level=level,
        baseline=baseline,
        difference=found,
        interval=interval(found),
        pairs=tuple(pairs),
        num_possible=num_possible,
        num_identical=num_identical,
    )


def _matched(
    observations: Sequence[Observation], factor: str, level: Label, baseline: Label
) -> Iterator[tuple[Observation, Observation]]:
    others = {_place(seen, factor): seen for seen in at_level(observations, factor, baseline)}
    for seen in at_level(observations, factor, level):
        other = others.get(_place(seen, factor))
        if other is not None:
            yield seen, other


def _place(seen: Observation, factor: str) -> tuple[object, ...]:
    """Replicate and all levels but the one of `factor`."""
    rest = (f"{name}={same(label)}" for name, label in seen.factors.items() if name != factor)
    return (seen.replicate, *sorted(rest))
