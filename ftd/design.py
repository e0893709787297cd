"""The design of an experiment: factors and levels become cells.

A factor varies one parameter (its name is the parameter's path) or several at once (its levels are
bundles: a name and what it sets).  The cells are every combination of levels in order of
appearance, or exactly the ones listed under ``cells``, less those matched by ``exclude``.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftd.document import KeyPath, shown
from ftd.errors import SpecError
from ftd.explain import did_you_mean
from ftd.spec import ExperimentSpec

MAX_RUNS = 100_000  # of one experiment; so many cells at most, too
MAX_LABEL = 10_000  # characters of a composite level as shown; never cut in practice

Label = str | int | float | bool | None


@dataclass(frozen=True)
class Level:
    """One value of a factor: what people call it and what it sets."""

    label: Label
    assignments: Mapping[str, Any]  # parameter path -> value
    named: bool
    at: KeyPath  # where it stands in the spec


@dataclass(frozen=True)
class Cell:
    """One combination: a level of every factor."""

    index: int
    chosen: Mapping[str, Level]

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


def cells(spec: ExperimentSpec) -> tuple[Cell, ...]:
    """The cells of `spec` in order; a spec without factors has one.

    Raises SpecError for malformed or repeated levels, unknown factors or levels in ``cells`` and
    ``exclude``, two factors that set one parameter, an empty design, or one of more than 100,000
    runs.
    """
    factors = {name: _levels(spec, name) for name in spec.factors}
    listed = list(_listed(spec, factors)) if spec.cells is not None else _crossed(spec, factors)
    excluded = [
        {name: _find(spec, factors, name, value, ("exclude", index, name)) for name, value in entry}
        for index, entry in enumerate(item.items() for item in spec.exclude)
    ]
    kept = [
        chosen for chosen in listed if not any(_matches(chosen, partial) for partial in excluded)
    ]
    if not kept:
        raise SpecError(
            "every cell is excluded", where=spec.document.where(("exclude",)), fix="Exclude less"
        )
    _check_size(spec, len(kept) * spec.replicates, "runs", ("replicates",))
    _check_conflicts(spec, kept)
    return tuple(Cell(index, chosen) for index, chosen in enumerate(kept))


def _levels(spec: ExperimentSpec, factor: str) -> tuple[Level, ...]:
    levels: dict[str, Level] = {}
    for index, value in enumerate(spec.factors[factor]):
        level = _level(spec, factor, value, ("factors", factor, index))
        first = levels.setdefault(_same(level.label), level)
        if first is not level:
            raise SpecError(
                f"level {shown(level.label)} stands twice",
                where=spec.document.where(level.at),
                fix="Keep one, or give them different names",
            )
    return tuple(levels.values())


def _level(spec: ExperimentSpec, factor: str, value: Any, at: KeyPath) -> Level:
    keys = set(value) if isinstance(value, dict) else set()
    if keys == {"name", "value"} or "set" in keys:
        name = value.get("name")
        if not isinstance(name, str) or not name or keys - {"name", "set", "value"}:
            raise _malformed(spec, at)
        if "set" not in keys:
            return Level(name, {factor: value["value"]}, True, at)
        if "value" in keys or not isinstance(value["set"], dict) or not value["set"]:
            raise _malformed(spec, at)
        return Level(name, value["set"], True, (*at, "set"))
    label = shown(value, limit=MAX_LABEL) if isinstance(value, dict | list) else value
    return Level(label, {factor: value}, False, at)


def _malformed(spec: ExperimentSpec, at: KeyPath) -> SpecError:
    return SpecError(
        "a named level has a name and either a value or what it sets",
        where=spec.document.where(at),
        fix="Write {name: WORD, value: VALUE} or {name: WORD, set: {PATH: VALUE}}",
    )


def _same(label: object) -> str:
    """A text equal for equal labels only: 1, true and '1' are three."""
    return json.dumps(label, sort_keys=True)


def _crossed(
    spec: ExperimentSpec, factors: Mapping[str, Sequence[Level]]
) -> Iterator[dict[str, Level]]:
    num_cells = math.prod(len(levels) for levels in factors.values())
    _check_size(spec, num_cells, "cells", ("factors",))
    for combination in itertools.product(*factors.values()):
        yield dict(zip(factors, combination, strict=True))


def _listed(
    spec: ExperimentSpec, factors: Mapping[str, Sequence[Level]]
) -> Iterator[dict[str, Level]]:
    """The cells listed in the spec; a factor not declared is a parameter path with plain values."""
    listed = spec.cells or []
    names = [name for name in factors if any(name in cell for cell in listed)]
    names += dict.fromkeys(name for cell in listed for name in cell if name not in factors)
    _check_size(spec, len(listed), "cells", ("cells",))
    for index, cell in enumerate(listed):
        absent = [name for name in names if name not in cell]
        if absent:
            raise SpecError(
                f"this cell does not say which level of {absent[0]}",
                where=spec.document.where(("cells", index)),
                fix="Every listed cell names the same factors",
            )
        at: KeyPath = ("cells", index)
        yield {
            name: _find(spec, factors, name, cell[name], (*at, name))
            if name in factors
            else _level(spec, name, cell[name], (*at, name))
            for name in names
        }


def _find(
    spec: ExperimentSpec,
    factors: Mapping[str, Sequence[Level]],
    factor: str,
    value: Any,
    at: KeyPath,
) -> Level:
    """The level of `factor` that `value` names."""
    if factor not in factors:
        raise SpecError(
            f"there is no factor '{factor}'",
            where=spec.document.where(at),
            fix=did_you_mean(factor, list(factors)),
        )
    label = shown(value, limit=MAX_LABEL) if isinstance(value, dict | list) else value
    wanted = _same(label)
    for level in factors[factor]:
        if _same(level.label) == wanted:
            return level
    raise SpecError(
        f"factor {factor} has no level {shown(value)}",
        where=spec.document.where(at),
        fix=did_you_mean(str(label), [shown(level.label) for level in factors[factor]]),
    )


def _matches(chosen: Mapping[str, Level], partial: Mapping[str, Level]) -> bool:
    return all(chosen.get(name) is level for name, level in partial.items())


def _check_size(spec: ExperimentSpec, count: int, unit: str, at: KeyPath) -> None:
    if count > MAX_RUNS:
        raise SpecError(
            f"{count:,} {unit}, the limit is {MAX_RUNS:,}",
            where=spec.document.where(at),
            fix="Use fewer levels or replicates, or several experiments",
        )


def _check_conflicts(spec: ExperimentSpec, chosen: Iterable[Mapping[str, Level]]) -> None:
    """Raise SpecError if two factors of a cell set one parameter, or one inside the other."""
    checked = set()
    for levels in chosen:
        paths = tuple(tuple(level.assignments) for level in levels.values())
        if paths in checked:
            continue
        checked.add(paths)
        setters: dict[str, str] = {}
        for factor, level in levels.items():
            for path in level.assignments:
                _check_conflict(spec, setters, path, factor, level)
                setters[path] = factor


def _check_conflict(
    spec: ExperimentSpec, setters: Mapping[str, str], path: str, factor: str, level: Level
) -> None:
    for other, setter in setters.items():
        if other == path or other.startswith(f"{path}.") or path.startswith(f"{other}."):
            raise SpecError(
                f"{path} is set twice in one cell, by factor {setter} (as {other}) and by {factor}",
                where=spec.document.where(level.at),
                fix="Let one factor set it, or exclude the combination",
            )
