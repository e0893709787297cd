"""A whole experiment in numbers: per factor its levels and contrasts, and every cell."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftd.stats.contrasts import Contrast, contrasts
from ftd.stats.observations import (
    Label,
    Observation,
    absences,
    by_level,
    factor_names,
    flag_counts,
)
from ftd.stats.spread import Spread, spread


@dataclass(frozen=True)
class Group:
    """Observations summarised together: those of a level, or of a cell.

    `num_planned` counts all of them, `measured` those with a value; `cost_s` is the mean in device
    seconds of those; `absent` and `flags` count the others' reasons and these' flags.
    """

    num_planned: int
    measured: Spread
    cost_s: float | None
    absent: Mapping[str, int]
    flags: Mapping[str, int]
    run_ids: tuple[int, ...]


@dataclass(frozen=True)
class LevelSummary:
    """One level of a factor, over all other factors and replicates."""

    level: Label
    group: Group


@dataclass(frozen=True)
class FactorSummary:
    """One factor: its levels side by side and their paired differences."""

    factor: str
    levels: tuple[LevelSummary, ...]
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class CellSummary:
    """One combination of levels, over its replicates."""

    cell: int
    factors: Mapping[str, Label]
    group: Group


@dataclass(frozen=True)
class Summary:
    """An experiment's answer in one metric."""

    metric: str
    overall: Group
    factors: tuple[FactorSummary, ...]
    cells: tuple[CellSummary, ...]


def summarise(observations: Sequence[Observation], metric: str) -> Summary:
    """Summarise all observations of an experiment; `metric` only names their values."""
    by_cell: dict[int, list[Observation]] = defaultdict(list)
    for seen in observations:
        by_cell[seen.cell].append(seen)
    return Summary(
        metric=metric,
        overall=group(observations),
        factors=tuple(_factor(observations, name) for name in factor_names(observations)),
        cells=tuple(
            CellSummary(cell, by_cell[cell][0].factors, group(by_cell[cell]))
            for cell in sorted(by_cell)
        ),
    )


def group(observations: Sequence[Observation]) -> Group:
    """Summarise observations together."""
    measured = [seen for seen in observations if seen.value is not None]
    return Group(
        num_planned=len(observations),
        measured=spread([seen.value for seen in measured if seen.value is not None]),
        cost_s=statistics.fmean(seen.cost_s for seen in measured) if measured else None,
        absent=absences(observations),
        flags=flag_counts(observations),
        run_ids=tuple(dict.fromkeys(seen.run_id for seen in observations)),
    )


def _factor(observations: Sequence[Observation], name: str) -> FactorSummary:
    return FactorSummary(
        factor=name,
        levels=tuple(
            LevelSummary(level, group(seen)) for level, seen in by_level(observations, name)
        ),
        contrasts=tuple(contrasts(observations, name)),
    )
