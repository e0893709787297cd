"""Distances of targets: a table per setting with intervals and ranks, and how measures agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftd.stats.ordering import SATURATED, Ordering, Reading, agreement, saturated
from ftd.views.phrases import factors, number, run_ids
from ftd.views.table import Table, table

REDUNDANT = "distance/a_distance"  # orders as svm_accuracy does
SIGNIFICANT = 3


def tables(title: str, found: Sequence[Ordering]) -> list[Table]:
    """One table for each setting, then the agreement of measures."""
    head = table("", (), (), notes=[title])
    shown = [_ordering(one) for one in found]
    if not any(one.ranks for one in found):
        notes = ["no run has measured a distance yet: `ftd status` shows what goes on"]
        return [head, table("", (), (), notes=notes)]
    return [head, *shown, _agreement(found), _how_to_read(found)]


def _ordering(one: Ordering) -> Table:
    names = _shown(one.ranks)
    rows = []
    for index, target in enumerate(one.targets):
        cells = [
            _cell(target.readings.get(name), one.ranks[name][index]) if name in one.ranks else "-"
            for name in names
        ]
        rows.append((factors(target.factors), *cells, run_ids(target.run_ids)))
    headings = ("target", *(f">{_short(name)}" for name in names), "runs")
    return table(factors(one.setting), headings, rows)


def _cell(reading: Reading | None, rank: float | None) -> str:
    if reading is None or rank is None:
        return "-"
    places = _places(reading)
    value, half = number(reading.value, places), number(reading.half_width, places)
    return f"{value} +-{half} ({rank:g})"


def _places(reading: Reading) -> int:
    """Decimals that show three digits of the value or two of its interval."""
    for places in range(7):
        if abs(reading.value) >= 10 ** (SIGNIFICANT - 1 - places):
            return places
    return 6


def _agreement(found: Sequence[Ordering]) -> Table:
    names = _shown({name: None for one in found for name in one.ranks})
    mean = agreement(found)
    rows = []
    for one in names:
        cells = [
            "1"
            if one == other
            else number(mean[pair][0], 2)
            if (pair := (one, other) if (one, other) in mean else (other, one)) in mean
            else "-"
            for other in names
        ]
        rows.append((_short(one), *cells))
    headings = ("Kendall's tau", *(f">{_short(name)}" for name in names))
    return table("agreement", headings, rows if len(names) > 1 else ())


def _how_to_read(found: Sequence[Ordering]) -> Table:
    notes = [
        "value +- half of its 95 % interval (rank): over replicates from three on, else over "
        "halves of the images",
        "ranks: 1 is the nearest by a distance, the most transferable by a score of labels",
        "tau (b): 1 the same order, -1 the opposite; the mean over the tables above",
    ]
    for name in saturated(found):
        notes.append(
            f"{_short(name)} is {SATURATED:g} or more for several targets: all of them can be told "
            "apart, so their order says little"
        )
    if any("proxy" in name for one in found for name in one.ranks):
        notes.append("proxy_...: no source was named; from what the weights tell of theirs")
    return table("", (), (), notes=notes)


def as_json(found: Sequence[Ordering]) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "orderings": [
            {
                "setting": dict(one.setting),
                "targets": [
                    {
                        "factors": dict(target.factors),
                        "runs": [f"r{run}" for run in target.run_ids],
                        "measures": {
                            name: {
                                "value": reading.value,
                                "half_width": reading.half_width,
                                "n": reading.n,
                                "rank": one.ranks[name][index],
                            }
                            for name, reading in target.readings.items()
                        },
                    }
                    for index, target in enumerate(one.targets)
                ],
            }
            for one in found
        ],
        "agreement": [
            {"measures": list(pair), "tau": tau, "orderings": count}
            for pair, (tau, count) in agreement(found).items()
        ],
        "saturated": saturated(found),
    }


def _shown(names: Any) -> list[str]:
    return [name for name in names if name != REDUNDANT]


def _short(name: str) -> str:
    return name.partition("/")[2]
