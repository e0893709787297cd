"""How measures order targets, and whether they order them alike."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftd.metric_names import goodness
from ftd.states import RunState
from ftd.stats.agreement import kendall_tau, ranks
from ftd.stats.observations import same
from ftd.stats.spread import interval, spread

if TYPE_CHECKING:
    from ftd.ledger.places import PlaceRow

STD = "_std"
SPLITS = ("distance", "transfer")
NORMAL_95 = 1.96  # standard deviations on each side that hold 95 % of a normal distribution
SATURATED = 0.99  # accuracy from which on telling two sets apart orders nothing
Pair = tuple[str, str]


@dataclass(frozen=True)
class Reading:
    """A measure of one target: the mean over `n` replicates, and half its 95 % interval.

    The interval is over replicates from three on (Student's t), else over halves of the images.
    """

    value: float
    half_width: float
    n: int


@dataclass(frozen=True)
class Target:
    """One cell: what it is called, its runs, what each measure (``split/name``) said."""

    factors: Mapping[str, Any]
    run_ids: tuple[int, ...]
    readings: Mapping[str, Reading]


@dataclass(frozen=True)
class Ordering:
    """The targets that differ in nothing else but what `setting` (levels) says.

    `ranks`: per measure one for each target, 1 for the nearest or most transferable, None where the
    measure is missing.  `taus`: Kendall's tau of each two measures over the targets that have both.
    """

    setting: Mapping[str, Any]
    targets: tuple[Target, ...]
    ranks: Mapping[str, tuple[float | None, ...]]
    taus: Mapping[Pair, float | None]


def orderings(rows: Sequence[PlaceRow], of: Sequence[str]) -> list[Ordering]:
    """One ordering for every combination of the factors that are not in `of`."""
    by_cell: dict[int, list[PlaceRow]] = defaultdict(list)
    for row in rows:
        by_cell[row.cell].append(row)
    groups: dict[str, tuple[dict[str, Any], list[Target]]] = {}
    for cell in sorted(by_cell):
        factors = by_cell[cell][0].factors
        setting = {name: level for name, level in factors.items() if name not in of}
        key = " ".join(f"{name}={same(level)}" for name, level in setting.items())
        _, targets = groups.setdefault(key, (setting, []))
        targets.append(_target({n: lv for n, lv in factors.items() if n in of}, by_cell[cell]))
    return [_ordering(setting, targets) for setting, targets in groups.values()]


def target_factors(rows: Sequence[PlaceRow]) -> list[str]:
    """The factors that tell targets apart: those of the target; all where there are none."""
    names = list(dict.fromkeys(name for row in rows for name in row.factors))
    return [name for name in names if name.split(".")[0] == "target"] or names


def agreement(found: Sequence[Ordering]) -> dict[Pair, tuple[float, int]]:
    """Per pair of measures the mean of tau over orderings that have one, and their number."""
    taus: dict[Pair, list[float]] = defaultdict(list)
    for one in found:
        for pair, tau in one.taus.items():
            if tau is not None:
                taus[pair].append(tau)
    return {pair: (sum(values) / len(values), len(values)) for pair, values in taus.items()}


def saturated(found: Sequence[Ordering]) -> list[str]:
    """The accuracies that are about 1 for several targets of one ordering."""
    guilty = []
    for name in _measures([target for one in found for target in one.targets]):
        if name.endswith("_accuracy") and any(
            sum(t.readings[name].value >= SATURATED for t in one.targets if name in t.readings) > 1
            for one in found
        ):
            guilty.append(name)
    return guilty


def _target(factors: Mapping[str, Any], rows: Sequence[PlaceRow]) -> Target:
    done = list({row.run.id: row.run for row in rows if row.run.state == RunState.DONE}.values())
    names = [
        name
        for name in (done[0].metrics if done else ())
        if name.partition("/")[0] in SPLITS and not name.endswith(STD)
    ]
    readings = {}
    for name in names:
        having = [run.metrics for run in done if name in run.metrics]
        values = spread([metrics[name] for metrics in having])
        assert values.mean is not None, "there is the first run's"
        limits = interval(values)
        if limits is None:
            squares = [metrics.get(name + STD, 0.0) ** 2 for metrics in having]
            half_width = NORMAL_95 * math.sqrt(sum(squares)) / len(squares)
        else:
            half_width = limits.high - values.mean
        readings[name] = Reading(values.mean, half_width, values.n)
    return Target(factors, tuple(run.id for run in done), readings)


def _ordering(setting: Mapping[str, Any], targets: Sequence[Target]) -> Ordering:
    measures = _measures(targets)
    badness = {
        name: [
            -goodness(target.readings[name].value, name) if name in target.readings else None
            for target in targets
        ]
        for name in measures
    }
    taus = {}
    for index, one in enumerate(measures):
        for other in measures[index + 1 :]:
            both = [
                (a, b)
                for a, b in zip(badness[one], badness[other], strict=True)
                if a is not None and b is not None
            ]
            taus[one, other] = kendall_tau([a for a, _ in both], [b for _, b in both])
    return Ordering(
        setting, tuple(targets), {name: _ranks(badness[name]) for name in measures}, taus
    )


def _ranks(badness: Sequence[float | None]) -> tuple[float | None, ...]:
    there = iter(ranks([value for value in badness if value is not None]))
    return tuple(None if value is None else next(there) for value in badness)


def _measures(targets: Sequence[Target]) -> list[str]:
    return list(dict.fromkeys(name for target in targets for name in target.readings))
