"""The design of an experiment: factors and levels become cells.

A factor varies one parameter (its name is the parameter's path) or several at once (its levels are
bundles: a name and what it sets).  The cells are every combination of levels in order of
appearance, or a baseline and each other level alone in it, or exactly the ones listed under
``cells``; less those matched by ``exclude``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftd.document import KeyPath
from ftd.errors import SpecError
from ftd.explain import did_you_mean
from ftd.spec.conflicts import check_conflicts
from ftd.spec.experiment import ExperimentSpec
from ftd.spec.factors import Factor, read_factors
from ftd.spec.levels import Chosen, Label, Level, find, read_level, same
from ftd.spec.replicates import replicates
from ftd.spec.tuning import Candidate, candidates

MAX_RUNS = 100_000  # of one experiment; so many cells at most, too

Factors = Mapping[str, Factor]


@dataclass(frozen=True)
class Cell:
    """One combination: a level of every factor that exists in it."""

    index: int
    chosen: Chosen

    @property
    def levels(self) -> dict[str, Label]:
        """Factor -> name or value as written."""
        return {factor: level.label for factor, level in self.chosen.items()}

    @property
    def assignments(self) -> dict[str, Any]:
        """Parameter path -> value, of all factors together."""
        return {
            path: value
            for level in self.chosen.values()
            for path, value in level.assignments.items()
        }

    def tried(self, candidate: Candidate) -> Cell:
        """This cell with a candidate's tuned levels beside its own."""
        return Cell(self.index, {**self.chosen, **candidate.chosen})


def cells(spec: ExperimentSpec) -> tuple[Cell, ...]:
    """The cells of `spec` in order; a spec without factors has one.

    Raises SpecError for malformed or repeated levels, unknown factors or levels in ``cells``,
    ``baseline`` and ``exclude``, a factor that is in no cell, one parameter that is set twice, an
    empty design, or one of more than 100,000 runs.
    """
    factors = read_factors(spec)
    if spec.cells is not None and spec.baseline is not None:
        raise SpecError(
            "cells are listed, so there is nothing to vary around a baseline",
            where=spec.document.where(("baseline",)),
            fix="Keep one of cells and baseline",
        )
    if spec.cells is not None:
        made = _listed(spec, factors)
    elif spec.baseline is not None:
        made = _one_at_a_time(spec, factors)
    else:
        made = _crossed(spec, factors)
    excluded = [
        {name: _levels_called(spec, factors, name, value, ("exclude", index, name))
         for name, value in entry.items()}
        for index, entry in enumerate(spec.exclude)
    ]  # fmt: skip
    kept = [chosen for chosen in made if not any(_matches(chosen, entry) for entry in excluded)]
    if not kept:
        raise SpecError(
            "every cell is excluded", where=spec.document.where(("exclude",)), fix="Exclude less"
        )
    if spec.baseline is not None and kept[0] is not made[0]:
        raise SpecError(
            "the baseline is excluded", where=spec.document.where(("exclude",)), fix="Exclude less"
        )
    _check_used(spec, factors, kept)
    tried = candidates(spec)
    num_runs = len(kept) * len(replicates(spec)) * len(tried)
    _check_size(spec, num_runs, "runs", ("replicates",))
    check_conflicts(spec, kept, [candidate.chosen for candidate in tried])
    return tuple(Cell(index, chosen) for index, chosen in enumerate(kept))


def _crossed(spec: ExperimentSpec, factors: Factors) -> list[Chosen]:
    """Every combination of levels, the first factor varying slowest.

    Where a factor does not exist, the cells that would differ in it alone are one.
    """
    if not any(factor.by or factor.when for factor in factors.values()):
        num_cells = math.prod(len(factor.levels) for factor in factors.values())
        _check_size(spec, num_cells, "cells", ("factors",))
    made: list[Chosen] = [{}]
    for name, factor in factors.items():
        found = [(chosen, factor.levels_in(chosen)) for chosen in made]
        num_cells = sum(len(levels) or 1 for _, levels in found)
        _check_size(spec, num_cells, "cells", ("factors",))
        made = [
            {**chosen, name: level} if level else chosen
            for chosen, levels in found
            for level in levels or (None,)
        ]
    return made


def _one_at_a_time(spec: ExperimentSpec, factors: Factors) -> list[Chosen]:
    """The baseline, then for each factor every other level alone in it."""
    given = spec.baseline or {}
    for name in given:
        _levels_called(spec, factors, name, given[name], ("baseline", name))
    base = _around_baseline(spec, factors, {})
    made: list[Chosen] = [base]
    for name, factor in factors.items():
        there = factor.levels_in(base)
        for level in there:
            if level is not base[name]:
                made.append(_around_baseline(spec, factors, {name: level}))
        if not there and len(factor.levels) > 1:
            raise SpecError(
                f"{name} does not exist in the baseline, so its levels cannot be varied there",
                where=spec.document.where(("factors", name)),
                fix="Choose a baseline in which it exists, or give it one level",
            )
    _check_size(spec, len(made), "cells", ("factors",))
    return made


def _around_baseline(
    spec: ExperimentSpec, factors: Factors, other: Mapping[str, Level]
) -> dict[str, Level]:
    """The baseline with `other` levels; a factor that only then exists is at its own baseline."""
    given = spec.baseline or {}
    chosen: dict[str, Level] = {}
    for name, factor in factors.items():
        levels = factor.levels_in(chosen)
        if name in other:
            chosen[name] = other[name]
        elif levels and name not in given and len(levels) == 1:
            chosen[name] = levels[0]
        elif levels and name not in given:
            raise SpecError(
                f"the baseline does not say which level of {name}",
                where=spec.document.where(("baseline",)),
                fix=f"Add {name}: LEVEL",
            )
        elif levels:
            (chosen[name],) = find(spec, name, levels, given[name], ("baseline", name))
    return chosen


def _listed(spec: ExperimentSpec, factors: Factors) -> list[Chosen]:
    """The cells listed in the spec; a factor not declared is a parameter path with plain values."""
    listed = spec.cells or []
    names = [name for name in factors if any(name in cell for cell in listed)]
    names += dict.fromkeys(name for cell in listed for name in cell if name not in factors)
    _check_size(spec, len(listed), "cells", ("cells",))
    return [_listed_cell(spec, factors, names, index) for index in range(len(listed))]


def _listed_cell(
    spec: ExperimentSpec, factors: Factors, names: Sequence[str], index: int
) -> Chosen:
    at: KeyPath = ("cells", index)
    cell = (spec.cells or [])[index]
    chosen: dict[str, Level] = {}
    for name in names:
        levels = factors[name].levels_in(chosen) if name in factors else None
        if name not in cell and levels != ():
            raise SpecError(
                f"this cell does not say which level of {name}",
                where=spec.document.where(at),
                fix="Every listed cell names the same factors",
            )
        if name not in cell:
            continue
        if levels == ():
            raise SpecError(
                f"{name} does not exist in this cell",
                where=spec.document.where((*at, name)),
                fix=f"Leave it out here, or change `when` of {name}",
            )
        if levels is None:
            chosen[name] = read_level(spec, name, cell[name], (*at, name))
        else:
            (chosen[name],) = find(spec, name, levels, cell[name], (*at, name))
    return chosen


def _levels_called(
    spec: ExperimentSpec, factors: Factors, name: str, value: Any, at: KeyPath
) -> tuple[Level, ...]:
    """The levels of the factor `name` that `value` names."""
    if name not in factors:
        raise SpecError(
            f"there is no factor '{name}'",
            where=spec.document.where(at),
            fix=did_you_mean(name, list(factors)),
        )
    return find(spec, name, factors[name].levels, value, at)


def _matches(chosen: Chosen, entry: Mapping[str, tuple[Level, ...]]) -> bool:
    return all(
        name in chosen and same(chosen[name].label) == same(levels[0].label)
        for name, levels in entry.items()
    )


def _check_used(spec: ExperimentSpec, factors: Factors, kept: Sequence[Chosen]) -> None:
    """Raise SpecError for a factor that is in no cell, though nobody listed the cells so."""
    used = {name for chosen in kept for name in chosen}
    for name in factors:
        if name not in used and spec.cells is None:
            path: KeyPath = ("factors", name, "when")
            raise SpecError(
                f"{name} exists in no cell",
                where=spec.document.where(path),
                fix="Change `when` here or of the factors it names, or exclude less",
            )


def _check_size(spec: ExperimentSpec, count: int, unit: str, at: KeyPath) -> None:
    if count > MAX_RUNS:
        raise SpecError(
            f"{count:,} {unit}, the limit is {MAX_RUNS:,}",
            where=spec.document.where(at),
            fix="Use fewer levels or replicates, or several experiments",
        )
