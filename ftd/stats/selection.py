"""Choosing: of the candidates at a place, the one that validation says is best.

Every candidate counts, diverged ones with their chance metrics; while one has no value, nothing is
chosen, since the choice would depend on what happened to be finished.  Equal ones: the first.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftd.metric_names import best, goodness
from ftd.outline import Tuning
from ftd.stats.observations import Label, same


@dataclass(frozen=True)
class Trial:
    """One candidate at a cell and replicate; without a `score`, `absent` says why there is none."""

    run_id: int
    cell: int
    replicate: int
    candidate: int
    tuned: Mapping[str, Label]
    score: float | None
    absent: str


@dataclass(frozen=True)
class Choice:
    """What is chosen at a cell and replicate, or why nothing is.

    `score` is what the choice went by: the trial's own, or its candidate's mean over replicates.
    `at_edge` names the parameters whose grid may be too narrow: the chosen level is its smallest or
    largest, and every trial with another level of it is worse.
    """

    trials: tuple[Trial, ...]  # of this cell and replicate, by candidate
    chosen: Trial | None
    score: float | None
    at_edge: tuple[str, ...]
    absent: str


def choices(trials: Sequence[Trial], tuning: Tuning) -> list[Choice]:
    """One choice per cell and replicate, in their order."""
    ordered = sorted(trials, key=lambda one: (one.cell, one.replicate, one.candidate))
    places: dict[tuple[int, int], list[Trial]] = defaultdict(list)
    for trial in ordered:
        places[trial.cell, trial.replicate].append(trial)
    if tuning.per == "replicate":
        return [_choice(place, place, tuning) for place in places.values()]
    cells: dict[int, list[Trial]] = defaultdict(list)
    for trial in ordered:
        cells[trial.cell].append(trial)
    return [_choice(place, cells[cell], tuning) for (cell, _), place in places.items()]


def _choice(place: Sequence[Trial], judged: Sequence[Trial], tuning: Tuning) -> Choice:
    """Choose one of the trials of a `place` by the scores of all that are `judged`."""
    missing = [trial for trial in judged if trial.score is None]
    if missing:
        absent = (
            f"{missing[0].absent}, {len(missing)} of {len(judged)} candidates have no "
            f"{tuning.select}"
        )
        return Choice(tuple(place), None, None, (), absent)
    scores: dict[int, list[float]] = defaultdict(list)
    for trial in judged:
        if trial.score is not None:
            scores[trial.candidate].append(trial.score)
    means = [statistics.fmean(scores[trial.candidate]) for trial in place]
    index = best(means, tuning.select)
    at_edge = tuple(name for name in tuning.edges if _at_edge(name, index, place, means, tuning))
    return Choice(tuple(place), place[index], means[index], at_edge, "")


def _at_edge(
    name: str, index: int, place: Sequence[Trial], means: Sequence[float], tuning: Tuning
) -> bool:
    level = same(place[index].tuned[name])
    if level not in {same(edge) for edge in tuning.edges[name]}:
        return False
    others = [
        goodness(mean, tuning.select)
        for trial, mean in zip(place, means, strict=True)
        if same(trial.tuned[name]) != level
    ]
    return goodness(means[index], tuning.select) > max(others)
