"""Mending rows that break an invariant: one transaction each, and the history says what was done.

Only for a home that no daemon serves.
"""

from __future__ import annotations

from ftd.clock import now
from ftd.ledger.db import Ledger
from ftd.ledger.invariants import StrayAttempt, StrayLease
from ftd.ledger.models import Attempt, Event, Lease, Run
from ftd.ledger.wishes import settle
from ftd.states import ENDED, Outcome, RunState


def put_back(ledger: Ledger, run_id: int, *, who: str) -> None:
    """Let a run that is said to execute stand where it is wished."""
    with ledger.transaction():
        ledger.write(
            Run.update(state=RunState.QUEUED).where(Run.id == run_id, Run.state == RunState.RUNNING)
        )
        settle(ledger, [run_id])
        _record(ledger, run_id, who, "put back: no attempt of it was live")


def resettle(ledger: Ledger, run_id: int, *, who: str) -> None:
    """Let a waiting run stand where it is wished."""
    with ledger.transaction():
        settle(ledger, [run_id])
        _record(ledger, run_id, who, "put where it is wished")


def mark_running(ledger: Ledger, attempt: StrayAttempt, *, who: str) -> None:
    """Let a waiting run with a live attempt be seen to execute, so that the daemon follows it."""
    with ledger.transaction():
        ledger.write(Run.update(state=RunState.RUNNING).where(Run.id == attempt.run_id))
        _record(ledger, attempt.run_id, who, "marked as executing: an attempt of it is live")


def close_attempt(ledger: Ledger, attempt: StrayAttempt, *, who: str) -> None:
    """End an attempt whose worker is gone as lost; its run stands where it is wished."""
    with ledger.transaction():
        ledger.write(
            Attempt.update(outcome=Outcome.LOST, ended_at=now()).where(
                Attempt.id == attempt.id, Attempt.outcome.is_null()
            )
        )
        worker = Attempt.select(Attempt.worker).where(Attempt.id == attempt.id)
        ledger.write(
            Lease.update(released_at=now()).where(
                Lease.worker.in_(worker), Lease.released_at.is_null()
            )
        )
        if attempt.run_state not in ENDED:
            ledger.write(Run.update(state=RunState.QUEUED).where(Run.id == attempt.run_id))
            settle(ledger, [attempt.run_id])
        _record(ledger, attempt.run_id, who, f"attempt {attempt.number} ended as lost")


def release_lease(ledger: Ledger, lease: StrayLease, *, who: str) -> None:
    """Give a device back."""
    with ledger.transaction():
        ledger.write(
            Lease.update(released_at=now()).where(Lease.id == lease.id, Lease.released_at.is_null())
        )
        _record(ledger, None, who, f"lease of {lease.device} for {lease.worker} released")


def _record(ledger: Ledger, run_id: int | None, who: str, what: str) -> None:
    ledger.insert(Event, at=now(), kind="mended", who=who, run=run_id, data={"what": what})
