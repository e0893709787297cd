"""Paired differences between two levels of a factor.

Two runs are a pair when they agree in every other factor and in the replicate, so that they share
split, subset, order and initial weights.  Pairs of one replicate are no independent evidence: they
are averaged, and the replicate is the unit that a mean, a spread and an interval count; or the top
stream's repetition, where streams are counted on their own, or the level of a random factor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ftd.outline import PLAIN, Outline
from ftd.stats.observations import Label, Observation, by_level, same, unit
from ftd.stats.spread import Interval, Spread, interval, spread, unit_means

MAX_LEVELS_ALL_PAIRS = 6  # 15 contrasts; above, every level against the first
_ROUNDING = 2.0**-50  # of two values: what is less in their difference is left by arithmetic


@dataclass(frozen=True)
class Contrast:
    """Level `level` minus level `baseline`; `difference` is over units (replicates).

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


def contrasts(
    observations: Sequence[Observation], factor: str, outline: Outline = PLAIN
) -> list[Contrast]:
    """All pairs of levels of a factor; with more than six, each level against the first.

    The first level, not the best one: picking the best from the same data makes every difference
    to it look larger than it is.  Around a baseline, each level against the baseline's, which is
    the first: its cell is.  Of a factor that is no plain one, none.  Levels that are one source
    net each have no intervals: what is repeated does not vary what they differ in.
    """
    if factor in outline.roles:
        return []
    random = next((name for name, role in outline.roles.items() if role == "random"), None)
    found = by_level(observations, factor)
    if outline.baseline is None and len(found) <= MAX_LEVELS_ALL_PAIRS:
        chosen = [(one, baseline) for baseline, one in combinations(found, 2)]
    else:
        chosen = [(one, found[0]) for one in found[1:]]
    differences = [_contrast(factor, one, baseline, random) for one, baseline in chosen]
    if factor in outline.one_source:
        return [replace(one, interval=None) for one in differences]
    return differences


_Level = tuple[Label, Sequence[Observation]]


def _contrast(factor: str, one: _Level, baseline: _Level, random: str | None) -> Contrast:
    differences: list[tuple[Hashable, float]] = []
    pairs = []
    num_possible = num_identical = 0
    scale = 0.0
    for this, other in _paired(one[1], baseline[1], factor):
        num_possible += 1
        if this.value is None or other.value is None:
            continue
        drawn = random is not None and random in this.factors
        independent = same(this.factors[random or ""]) if drawn else unit(this)
        differences.append((independent, this.value - other.value))
        scale = max(scale, abs(this.value), abs(other.value))
        pairs.append((this.run_id, other.run_id))
        num_identical += this.run_id == other.run_id
    found = _unrounded(spread(unit_means(differences)), scale)
    return Contrast(
        level=one[0],
        baseline=baseline[0],
        difference=found,
        interval=interval(found),
        pairs=tuple(pairs),
        num_possible=num_possible,
        num_identical=num_identical,
    )


def _paired(
    ones: Sequence[Observation], others: Sequence[Observation], factor: str
) -> Iterator[tuple[Observation, Observation]]:
    """Pairs that agree in the replicate and in every other factor that exists in both.

    A factor that exists in one of the two only is nested in what they differ in; what has it is
    paired at each of its levels.
    """
    for names, some in _by_names(ones):
        for other_names, rest in _by_names(others):
            common = sorted((names & other_names) - {factor})
            places: dict[tuple[object, ...], list[Observation]] = defaultdict(list)
            for other in rest:
                places[_place(other, common)].append(other)
            for this in some:
                for other in places.get(_place(this, common), ()):
                    yield this, other


def _by_names(
    observations: Sequence[Observation],
) -> list[tuple[frozenset[str], list[Observation]]]:
    """The observations by the factors that exist where they were made."""
    found: dict[frozenset[str], list[Observation]] = defaultdict(list)
    for seen in observations:
        found[frozenset(seen.factors)].append(seen)
    return list(found.items())


def _place(seen: Observation, names: Sequence[str]) -> tuple[object, ...]:
    return (seen.replicate, *(same(seen.factors[name]) for name in names))


def _unrounded(found: Spread, scale: float) -> Spread:
    """`found` of differences between values up to `scale`, without what rounding left of a 0."""
    mean, sd = (
        0.0 if value is not None and abs(value) < _ROUNDING * scale else value
        for value in (found.mean, found.sd)
    )
    return replace(found, mean=mean, sd=sd)
