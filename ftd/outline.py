"""What a summary must know of a design beyond cells and levels; kept with the experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Label = str | int | float | bool | None


@dataclass(frozen=True)
class Tuning:
    """How candidates are chosen, and which of their levels are at the edge of the grid.

    `edges` has the smallest and the largest level of every tuned parameter whose levels are three
    or more numbers.
    """

    select: str  # val/name
    per: Literal["replicate", "cell"]
    edges: Mapping[str, tuple[Label, Label]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outline:
    """A design, as far as its numbers' meaning depends on it.

    `roles` has the factors that are not plain ones; `baseline` the levels that all are compared
    with, in a design of one factor at a time; `num_inner` replicates are averaged in one unit.
    `one_source` has the factors of the source whose levels are one source net each, for all units.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    baseline: Mapping[str, Label] | None = None
    num_inner: int = 1
    tuning: Tuning | None = None
    one_source: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON values, for :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Outline:
        """The outline that :meth:`as_json` wrote; a plain one for None."""
        if data is None:
            return cls()
        tuning = data["tuning"]
        if tuning is not None:
            edges = {name: (low, high) for name, (low, high) in tuning["edges"].items()}
            tuning = Tuning(tuning["select"], tuning["per"], edges)
        one_source = tuple(data.get("one_source", ()))
        return cls(data["roles"], data["baseline"], data["num_inner"], tuning, one_source)


PLAIN = Outline()
