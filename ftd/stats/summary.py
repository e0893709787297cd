"""A whole experiment in numbers: per factor its levels and contrasts, and every cell."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftd.outline import PLAIN, Outline
from ftd.stats.contrasts import Contrast, contrasts
from ftd.stats.observations import (
    Label,
    Observation,
    absences,
    by_level,
    factor_names,
    flag_counts,
    same,
    unit,
)
from ftd.stats.selection import Choice
from ftd.stats.spread import Spread, spread, unit_means


@dataclass(frozen=True)
class Group:
    """Observations summarised together: those of a level, or of a cell.

    `num_planned` counts all of them, `num_measured` those with a value; `measured` is over their
    units, what is repeated inside one averaged; costs (in device seconds) and `figures` (speed and
    size by name) are means of those; `absent` and `flags` count the others' reasons and these'
    flags.
    """

    num_planned: int
    num_measured: int
    measured: Spread
    cost_actual_s: float | None
    cost_alone_s: float | None
    figures: Mapping[str, float]
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
    """One factor: its levels side by side and their paired differences.

    `role` is factor, block or random; a `nested` one exists in some cells only, and levels and
    differences are inside these.
    """

    factor: str
    role: str
    nested: bool
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
    """An experiment's answer in one metric; `choices` where parameters are tuned."""

    metric: str
    overall: Group
    factors: tuple[FactorSummary, ...]
    cells: tuple[CellSummary, ...]
    outline: Outline
    choices: tuple[Choice, ...]


def summarise(
    observations: Sequence[Observation],
    metric: str,
    outline: Outline = PLAIN,
    choices: Sequence[Choice] = (),
) -> Summary:
    """Summarise all observations of an experiment; `metric` only names their values."""
    by_cell: dict[int, list[Observation]] = defaultdict(list)
    for seen in observations:
        by_cell[seen.cell].append(seen)
    return Summary(
        metric=metric,
        overall=group(observations),
        factors=tuple(_factor(observations, name, outline) for name in factor_names(observations)),
        cells=tuple(
            CellSummary(cell, by_cell[cell][0].factors, group(by_cell[cell]))
            for cell in sorted(by_cell)
        ),
        outline=outline,
        choices=tuple(choices),
    )


def group(observations: Sequence[Observation]) -> Group:
    """Summarise observations together."""
    measured = [seen for seen in observations if seen.value is not None]
    return Group(
        num_planned=len(observations),
        num_measured=len(measured),
        measured=spread(_unit_means(measured)),
        cost_actual_s=_mean([seen.cost_actual_s for seen in measured]),
        cost_alone_s=_mean([seen.cost_alone_s for seen in measured]),
        figures={
            name: statistics.fmean(seen.figures[name] for seen in measured if name in seen.figures)
            for name in sorted({name for seen in measured for name in seen.figures})
        },
        absent=absences(observations),
        flags=flag_counts(observations),
        run_ids=tuple(dict.fromkeys(seen.run_id for seen in observations)),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _unit_means(measured: Sequence[Observation]) -> list[float]:
    """The mean of each unit of each cell."""
    return unit_means(
        ((seen.cell, unit(seen)), seen.value) for seen in measured if seen.value is not None
    )


def _factor(observations: Sequence[Observation], name: str, outline: Outline) -> FactorSummary:
    nested = any(name not in seen.factors for seen in observations)
    if outline.baseline is not None:
        alone = [seen for seen in observations if _varies_alone(seen, name, outline)]
        if any(name in seen.factors for seen in alone):  # else it exists off the baseline only
            observations = alone
    return FactorSummary(
        factor=name,
        role=outline.roles.get(name, "factor"),
        nested=nested,
        levels=tuple(
            LevelSummary(level, group(seen)) for level, seen in by_level(observations, name)
        ),
        contrasts=tuple(contrasts(observations, name, outline)),
    )


def _varies_alone(seen: Observation, name: str, outline: Outline) -> bool:
    """Whether every other factor is at its baseline."""
    baseline = outline.baseline or {}
    return all(
        same(label) == same(baseline[other])
        for other, label in seen.factors.items()
        if other != name and other in baseline
    )
