"""Factors: their levels, and in which cells they exist.

A factor may exist only where others above it have certain levels (``when``), and have other levels
for each level of one above it (``by``).  Both name factors above, so that cells can be built factor
by factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ftd.document import KeyPath, shown
from ftd.errors import SpecError
from ftd.explain import did_you_mean
from ftd.spec.declared import ConditionalFactor
from ftd.spec.experiment import ExperimentSpec
from ftd.spec.levels import Chosen, Level, find, read_levels, same

Role = Literal["factor", "block", "random"]


@dataclass(frozen=True)
class Factor:
    """One factor.  ``when`` and ``by`` map levels, by :func:`ftd.spec.levels.same`, of others."""

    name: str
    role: Role
    always: tuple[Level, ...]  # unless by
    by: str | None
    levels_by: Mapping[str, tuple[Level, ...]]
    when: Mapping[str, frozenset[str]]

    @property
    def levels(self) -> tuple[Level, ...]:
        """Every level, wherever it exists; those of several lists may be called the same."""
        return self.always or tuple(level for some in self.levels_by.values() for level in some)

    def levels_in(self, chosen: Chosen) -> tuple[Level, ...]:
        """Its levels in a cell with these levels of the factors above; none where it is not."""
        for name, wanted in self.when.items():
            if name not in chosen or same(chosen[name].label) not in wanted:
                return ()
        if self.by is None:
            return self.always
        return self.levels_by.get(same(chosen[self.by].label), ()) if self.by in chosen else ()


def read_factors(spec: ExperimentSpec) -> dict[str, Factor]:
    """The declared factors of `spec` by name, in order.

    Raises SpecError for malformed levels and for what names no factor or level above.
    """
    factors: dict[str, Factor] = {}
    for name, declared in spec.factors.items():
        if isinstance(declared, ConditionalFactor):
            factors[name] = _conditional(spec, name, declared, factors)
        else:
            levels = read_levels(spec, name, declared, ("factors", name))
            factors[name] = Factor(name, "factor", levels, None, {}, {})
    drawn = [name for name, factor in factors.items() if factor.role == "random"]
    if len(drawn) > 1:
        raise SpecError(
            f"{drawn[0]} is random already, and an interval has one unit",
            where=spec.document.where(("factors", drawn[1], "role")),
            fix="Let the other be a block",
        )
    return factors


def _conditional(
    spec: ExperimentSpec, name: str, declared: ConditionalFactor, above: Mapping[str, Factor]
) -> Factor:
    at: KeyPath = ("factors", name)
    when: dict[str, frozenset[str]] = {}
    for other, wanted in declared.when.items():
        factor = _above(spec, other, above, (*at, "when", other))
        values = wanted if isinstance(wanted, list) else [wanted]
        when[other] = frozenset(
            same(find(spec, other, factor.levels, value, (*at, "when", other))[0].label)
            for value in values
        )
    if declared.role == "random" and (when or declared.by):
        raise SpecError(
            "a random factor exists in every cell, with the same levels",
            where=spec.document.where((*at, "role")),
            fix="Leave out when and by, or let it be a block",
        )
    if isinstance(declared.levels, list) and declared.by is None:
        levels = read_levels(spec, name, declared.levels, (*at, "levels"))
        return Factor(name, declared.role, levels, None, {}, when)
    if isinstance(declared.levels, list) or declared.by is None:
        raise SpecError(
            "levels are a mapping exactly where `by` names a factor",
            where=spec.document.where((*at, "levels")),
            fix="Write levels: [...], or by: FACTOR and levels: {ITS LEVEL: [...], ...}",
        )
    factor = _above(spec, declared.by, above, (*at, "by"))
    by = _levels_by(spec, name, declared.levels, factor, when.get(factor.name))
    return Factor(name, declared.role, (), declared.by, by, when)


def _levels_by(
    spec: ExperimentSpec,
    name: str,
    written: Mapping[str, Sequence[object]],
    other: Factor,
    among: frozenset[str] | None,
) -> dict[str, tuple[Level, ...]]:
    """The levels of `name` for each level of `other`; all of those, or those `among`, need some."""
    at: KeyPath = ("factors", name, "levels")
    known = {shown(level.label): same(level.label) for level in other.levels}  # keys are text
    found = {}
    for key, values in written.items():
        if key not in known:
            raise SpecError(
                f"factor {other.name} has no level {shown(key)}",
                where=spec.document.where((*at, key)),
                fix=did_you_mean(key, list(known)),
            )
        found[known[key]] = read_levels(spec, name, values, (*at, key))
    for key, label in known.items():
        if label not in found and (among is None or label in among):
            raise SpecError(
                f"no levels where {other.name} is {key}",
                where=spec.document.where(at),
                fix=f"Add {key}: [...], or say with `when` where {name} exists",
            )
    return found


def _above(spec: ExperimentSpec, name: str, above: Mapping[str, Factor], at: KeyPath) -> Factor:
    if name in above:
        return above[name]
    below = name in spec.factors
    raise SpecError(
        f"{name} does not stand above this factor" if below else f"there is no factor '{name}'",
        where=spec.document.where(at),
        fix=f"Write {name} first" if below else did_you_mean(name, list(above)),
    )
