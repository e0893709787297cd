"""What a summary is computed from: one observation per cell and replicate, none left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ftd.outline import Label as Label


@dataclass(frozen=True)
class Observation:
    """What one cell and replicate gave; without a `value`, `absent` says why there is none.

    `flags` may hold ``diverged``, ``stuck``, ``approximate``, or that of a source; `cost_actual_s`
    and `cost_alone_s` are device seconds, the latter as if nothing had been shared with other runs.
    `unit` numbers what is independent of the rest; by default the replicate.  `figures` are the
    run's speed and size by name.
    """

    run_id: int
    cell: int
    replicate: int
    factors: Mapping[str, Label]
    value: float | None
    absent: str
    cost_actual_s: float
    cost_alone_s: float
    flags: tuple[str, ...]
    unit: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


def same(label: Label) -> str:
    """A text equal for equal levels only: 1, true and "1" are three levels."""
    return json.dumps(label, sort_keys=True)


def unit(seen: Observation) -> int:
    """The number of the repetition that is independent of the others."""
    return seen.replicate if seen.unit is None else seen.unit


def factor_names(observations: Iterable[Observation]) -> list[str]:
    """All factors, in the order in which the cells name them."""
    return list(dict.fromkeys(name for seen in observations for name in seen.factors))


def by_level(
    observations: Iterable[Observation], factor: str
) -> list[tuple[Label, list[Observation]]]:
    """The levels of a factor with their observations, both in the order of the cells.

    Observations of cells in which the factor does not exist are left out.
    """
    found: dict[str, tuple[Label, list[Observation]]] = {}
    for seen in sorted(observations, key=lambda seen: (seen.cell, seen.replicate)):
        if factor not in seen.factors:
            continue
        label = seen.factors[factor]
        found.setdefault(same(label), (label, []))[1].append(seen)
    return list(found.values())


def absences(observations: Iterable[Observation]) -> dict[str, int]:
    """How many observations are absent, by reason, the most frequent first."""
    return dict(Counter(seen.absent for seen in observations if seen.value is None).most_common())


def flag_counts(observations: Iterable[Observation]) -> dict[str, int]:
    """How many observations with a value carry each flag."""
    measured = (seen for seen in observations if seen.value is not None)
    counted = Counter(flag for seen in measured for flag in seen.flags)
    return dict(sorted(counted.items()))
