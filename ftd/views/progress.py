"""How far a running run is: bar, pace, time left, and what its job shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftd.ledger.rows import LiveRow
from ftd.views.phrases import at_chance, duration

_HIDDEN = ("at", "elapsed_s")  # when the progress was reported: no news for people


def bar(step: int, num_steps: int | None, width: int = 16) -> str:
    """``[######----------]  38%``; without a known end, only the step."""
    if not num_steps:
        return f"step {step}" if step else "starting"
    share = min(max(step / num_steps, 0.0), 1.0)
    filled = int(share * width)
    return f"[{'#' * filled}{'-' * (width - filled)}] {int(share * 100):3}%"


def steps(row: LiveRow) -> str:
    """``120/400``."""
    return f"{row.step}/{row.num_steps}" if row.num_steps else ""


def remaining_s(row: LiveRow) -> float | None:
    """Seconds left at the pace of this attempt so far; None before there is a pace."""
    reported_at = row.progress.get("at")
    done = row.step - (row.resumed_from_step or 0)
    if not row.num_steps or done <= 0 or not isinstance(reported_at, int | float):
        return None
    elapsed = row.progress.get("elapsed_s", reported_at - row.started_at)  # no clock can change it
    return max(row.num_steps - row.step, 0) * elapsed / done if elapsed > 0 else None


def shown(progress: Mapping[str, Any]) -> str:
    """What the job reports beside its step: ``epoch 3, images_per_s 41, val/top1 0.84``."""
    parts = (f"{name} {_value(value)}" for name, value in progress.items() if name not in _HIDDEN)
    return ", ".join(parts)


def reports(row: LiveRow) -> str:
    """What a running run has to say: what keeps it from going on, else what its job reports."""
    said = row.trouble or shown(row.progress)
    return "; ".join(filter(None, [said, *at_chance(row.sources_at_chance)]))


def time_left(row: LiveRow) -> str:
    """The time left as text, ``-`` while unknown; a stopping run says so instead."""
    if row.stop_why:
        return f"stopping ({row.stop_why})"
    return duration(remaining_s(row))


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
