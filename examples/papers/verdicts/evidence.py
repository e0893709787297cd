"""What the home's experiments say about a claim: a difference that should be positive.

A claim is supported when its 95 % interval (Student's t; the unit is the replicate, with a source
network, a split and a subset of its own) lies above 0, contradicted when below, else undecided.
Intervals are not corrected for their number.
"""

from __future__ import annotations

import csv
import io
import subprocess
from collections.abc import Callable, Mapping
from statistics import mean

from ftd.stats.spread import interval, spread

Row = Mapping[str, str]
Keep = Callable[[Row], bool]
PerUnit = Mapping[str, float]  # replicate -> value


def rows_of(experiment: str) -> list[Row]:
    """Places of an experiment, of tuned ones the chosen candidate's.

    None if it is not there, or not yet done.
    """
    done = subprocess.run(["ftd", "export", experiment], capture_output=True, text=True)
    found = list(csv.DictReader(io.StringIO(done.stdout))) if done.returncode == 0 else []
    if any(row["state"] != "done" for row in found):
        return []
    return [row for row in found if row.get("chosen") != "False"]


def claim(text: str, per_unit: PerUnit, unit: str = "") -> None:
    """Print a claim's difference, interval, number of units and verdict."""
    found = spread(list(per_unit.values()))
    bounds = interval(found)
    if bounds is None:
        print(f"| {text} | {len(per_unit)} units | undecided |")
        return
    verdict = "supported" if bounds.low > 0 else "contradicted" if bounds.high < 0 else "undecided"
    told = f"{found.mean:+.3f}{unit} ({bounds.low:+.3f} to {bounds.high:+.3f}), n = {len(per_unit)}"
    print(f"| {text} | {told} | {verdict} |")


def by_replicate(rows: list[Row], metric: str, keep: Keep = lambda row: True) -> dict[str, float]:
    """Replicate -> mean of the metric over the rows that are kept."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if keep(row):
            found.setdefault(row["replicate"], []).append(float(row[metric]))
    return {replicate: mean(values) for replicate, values in found.items()}


def minus(one: PerUnit, other: PerUnit) -> dict[str, float]:
    """Differences of the replicates that both have."""
    return {key: one[key] - other[key] for key in one if key in other}


def at(**wanted: str) -> Keep:
    """Rows with these factors; ``__`` stands for the dot of a name."""
    names = {name.replace("__", "."): value for name, value in wanted.items()}
    return lambda row: all(row[name] == value for name, value in names.items())


def levels(rows: list[Row], factor: str) -> list[str]:
    """The levels of a factor, in order."""
    return list(dict.fromkeys(row[factor] for row in rows))
