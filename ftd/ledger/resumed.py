"""What went on again by itself after the machine was started, and what had to be done twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftd.ledger.db import Ledger
from ftd.ledger.models import Attempt, Worker


@dataclass(frozen=True)
class Resumed:
    """Runs that a reboot interrupted and that went on since; `steps_redone` over all of them."""

    runs: tuple[int, ...]
    steps_redone: int

    def as_json(self) -> dict[str, Any]:
        """``resumed`` in ``ftd status --json``."""
        return {"runs": [f"r{run}" for run in self.runs], "steps_redone": self.steps_redone}


def steps_redone(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> int | None:
    """Steps known to be done by an `earlier` attempt that a `later` one repeated.

    Of attempts with `step` and `resumed_from_step`; None before the later one has said where it
    began.
    """
    began: int | None = later["resumed_from_step"]
    return None if began is None else max(int(earlier["step"]) - began, 0)


def resumed_after_reboot(ledger: Ledger, boot_id: str, since: float) -> Resumed:
    """What attempts of the boot `boot_id` that began after `since` (UTC seconds) took up again."""
    # Ids grow with time, and started_at has no index: walk back from the newest.
    before = Attempt.select(Attempt.id).where(Attempt.started_at < since)
    last_before = ledger.values(before.order_by(Attempt.id.desc()).limit(1))
    later = ledger.rows(
        Attempt.select(Attempt.run, Attempt.number, Attempt.resumed_from_step)
        .join(Worker)
        .where(
            Attempt.id > (last_before[0] if last_before else 0),
            Attempt.number > 1,
            Attempt.resumed_from_step.is_null(False),
            Worker.boot_id == boot_id,
        )
    )
    runs, redone = set(), 0
    for attempt in later:
        earlier = _earlier(ledger, attempt["run"], attempt["number"])
        if earlier is not None and earlier["boot_id"] != boot_id:
            runs.add(attempt["run"])
            redone += steps_redone(earlier, attempt) or 0
    return Resumed(tuple(sorted(runs)), redone)


def _earlier(ledger: Ledger, run_id: int, number: int) -> dict[str, Any] | None:
    """The last attempt before attempt `number` that came as far as being a process."""
    return ledger.row(
        Attempt.select(Attempt.step, Worker.boot_id)
        .join(Worker)
        .where(Attempt.run == run_id, Attempt.number < number, Worker.boot_id.is_null(False))
        .order_by(Attempt.number.desc())
    )
