"""A figure: several measurements of one quantity, and the goal they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A limit that the median must keep."""

    limit: float
    at_least: bool = False  # else: at most

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"

    def reached_by(self, value: float) -> bool:
        """Whether `value` keeps the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """One quantity in `unit`, measured as often as it has `values`."""

    name: str
    unit: str
    values: Sequence[float]
    goal: Goal | None = None

    @property
    def median(self) -> float:
        """What the goal is compared with."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """``reached``, ``missed``, or nothing without a goal."""
        if self.goal is None:
            return ""
        return "reached" if self.goal.reached_by(self.median) else "missed"

    def as_json(self) -> dict[str, Any]:
        """The figure with every value, for scripts."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "values": list(self.values),
            "goal": str(self.goal) if self.goal else None,
            "verdict": self.verdict or None,
        }

    def as_row(self) -> tuple[str, ...]:
        """The figure as people read it."""
        low, high = min(self.values), max(self.values)
        return (
            self.name,
            f"{_digits(self.median)} {self.unit}".strip(),
            f"{_digits(low)} - {_digits(high)}",
            str(len(self.values)),
            str(self.goal) if self.goal else "",
            self.verdict,
        )


def _digits(value: float) -> str:
    """Three significant digits, and never fewer than the integer part."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
