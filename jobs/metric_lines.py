"""Metrics in what a program prints: ``ftd-metric val/top1 0.91 300``, or the same as JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

_PLAIN = re.compile(r"ftd-metric\s+(\S+)\s+(\S+)\s+(\S+)\s*")
_NAME = re.compile(r"[^/\s]+/\S+")


@dataclass(frozen=True)
class Row:
    """One value of a metric; ``name`` begins with its split."""

    name: str
    value: float
    step: int


def row_in(line: str) -> Row | None:
    """The metric that a printed line tells, None for any other line.

    ``ftd-metric NAME VALUE STEP`` or a JSON object with ``metric``, ``value`` and ``step``.  Raises
    ValueError for a line that is meant to be one and is not understood.
    """
    text = line.strip()
    if text.startswith("ftd-metric"):
        found = _PLAIN.fullmatch(text)
        if found is None:
            raise ValueError("write ftd-metric NAME VALUE STEP")
        return _row(found[1], float(found[2]), int(found[3]))
    if not (text.startswith("{") and '"metric"' in text):
        return None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None  # something else in braces
    if not isinstance(said, dict) or "metric" not in said:
        return None
    name, value, step = said["metric"], said.get("value"), said.get("step")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("value has to be a number")
    if type(step) is not int or not isinstance(name, str):
        raise ValueError("metric has to be a name and step a whole number")
    return _row(name, float(value), step)


def _row(name: str, value: float, step: int) -> Row:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} does not name its split, as in val/top1")
    if not 0 <= step < 1 << 63:
        raise ValueError(f"step {step} is no count")
    return Row(name, value, step)


def is_finite(row: Row) -> bool:
    """Whether the ledger can hold it."""
    return math.isfinite(row.value)
