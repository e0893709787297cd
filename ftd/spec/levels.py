"""The levels of a factor: what each is called and which parameters it sets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftd.document import KeyPath, shown
from ftd.errors import SpecError
from ftd.explain import did_you_mean
from ftd.spec.experiment import ExperimentSpec

MAX_LABEL = 10_000  # characters of a composite level as shown; never cut in practice

Label = str | int | float | bool | None


@dataclass(frozen=True)
class Level:
    """One value of a factor: what people call it and what it sets."""

    label: Label
    assignments: Mapping[str, Any]  # parameter path -> value
    named: bool
    at: KeyPath  # where it stands in the spec

    @property
    def listed_at(self) -> KeyPath:
        """Where the list stands that it is in."""
        return self.at[:-2] if self.at[-1] == "set" else self.at[:-1]


Chosen = Mapping[str, Level]  # factor -> its level


def read_levels(
    spec: ExperimentSpec, name: str, values: Iterable[Any], at: KeyPath
) -> tuple[Level, ...]:
    """The levels listed at `at` for `name`.  Raises SpecError for a malformed or repeated one."""
    levels: dict[str, Level] = {}
    for index, value in enumerate(values):
        level = read_level(spec, name, value, (*at, index))
        first = levels.setdefault(same(level.label), level)
        if first is not level:
            raise SpecError(
                f"level {shown(level.label)} stands twice",
                where=spec.document.where(level.at),
                fix="Keep one, or give them different names",
            )
    return tuple(levels.values())


def read_level(spec: ExperimentSpec, name: str, value: Any, at: KeyPath) -> Level:
    """One level: a value, ``{name, value}`` or ``{name, set}``.  Raises SpecError."""
    keys = set(value) if isinstance(value, dict) else set()
    if keys == {"name", "value"} or "set" in keys:
        word = value.get("name")
        if not isinstance(word, str) or not word or keys - {"name", "set", "value"}:
            raise _malformed(spec, at)
        if "set" not in keys:
            return Level(word, {name: value["value"]}, True, at)
        if "value" in keys or not isinstance(value["set"], dict) or not value["set"]:
            raise _malformed(spec, at)
        return Level(word, value["set"], True, (*at, "set"))
    return Level(_label(value), {name: value}, False, at)


def same(label: object) -> str:
    """A text equal for equal labels only: 1, true and '1' are three."""
    return json.dumps(label, sort_keys=True)


def find(
    spec: ExperimentSpec, factor: str, levels: Sequence[Level], value: Any, at: KeyPath
) -> tuple[Level, ...]:
    """Those of the `levels` of `factor` that `value` names (several where lists have it each).

    Raises SpecError naming the closest level when there is none.
    """
    label = _label(value)
    wanted = same(label)
    found = tuple(level for level in levels if same(level.label) == wanted)
    if not found:
        known = dict.fromkeys(shown(level.label) for level in levels)
        raise SpecError(
            f"factor {factor} has no level {shown(value)}",
            where=spec.document.where(at),
            fix=did_you_mean(str(label), list(known)),
        )
    return found


def _label(value: Any) -> Label:
    return shown(value, limit=MAX_LABEL) if isinstance(value, dict | list) else value


def _malformed(spec: ExperimentSpec, at: KeyPath) -> SpecError:
    return SpecError(
        "a named level has a name and either a value or what it sets",
        where=spec.document.where(at),
        fix="Write {name: WORD, value: VALUE} or {name: WORD, set: {PATH: VALUE}}",
    )
