"""Conflicts: one parameter that two factors, or a factor and what is tuned, set in one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ftd.errors import SpecError
from ftd.spec.experiment import ExperimentSpec
from ftd.spec.levels import Chosen, Level


def check_conflicts(
    spec: ExperimentSpec, cells: Iterable[Chosen], candidates: Iterable[Chosen]
) -> None:
    """Raise SpecError if one parameter is set twice in a cell, or one inside the other."""
    tuned = _of_distinct_paths(candidates)
    for chosen in _of_distinct_paths(cells):
        for tried in tuned:
            setters: dict[str, str] = {}
            for name, level in {**chosen, **tried}.items():
                setter = f"factor {name}" if name in chosen else f"tuned {name}"
                for path in level.assignments:
                    _check(spec, setters, path, setter, level)
                    setters[path] = setter


def _of_distinct_paths(some: Iterable[Chosen]) -> list[Chosen]:
    """The first of all that set the same parameters."""
    found: dict[tuple[tuple[str, ...], ...], Chosen] = {}
    for chosen in some:
        found.setdefault(tuple(tuple(level.assignments) for level in chosen.values()), chosen)
    return list(found.values())


def _check(
    spec: ExperimentSpec, setters: Mapping[str, str], path: str, setter: str, level: Level
) -> None:
    for other, earlier in setters.items():
        if other == path or other.startswith(f"{path}.") or path.startswith(f"{other}."):
            raise SpecError(
                f"{path} is set twice in one cell, by {earlier} (as {other}) and by {setter}",
                where=spec.document.where(level.at),
                fix="Let one factor set it, or exclude the combination",
            )
