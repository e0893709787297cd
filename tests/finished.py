"""Attempts that end as a test wants, written through the ledger's own functions."""

from __future__ import annotations

from collections.abc import Mapping

from ftd.ledger.db import Ledger
from ftd.ledger.execution import Ending, LiveAttempt, end_attempt, start_attempt
from ftd.protocol import Result
from ftd.states import Outcome, RunState


def begin(ledger: Ledger, run_id: int, device: str = "cpu:0") -> LiveAttempt:
    """Start an attempt of a queued run."""
    started = start_attempt(ledger, run_id, device)
    assert started is not None, f"r{run_id} is not queued"
    return started


def complete(ledger: Ledger, run_id: int, metrics: Mapping[str, float], *flags: str) -> None:
    """Let a queued run be done in one attempt, with these final metrics."""
    result = Result(
        Outcome.COMPLETED, num_steps=3, metrics=metrics, state_sha256=f"{run_id:064x}", flags=flags
    )
    end_attempt(ledger, begin(ledger, run_id), Ending(Outcome.COMPLETED, RunState.DONE, result))


def fail(ledger: Ledger, run_id: int, error: str, next_state: RunState = RunState.FAILED) -> None:
    """Let a queued run fail in one attempt."""
    ending = Ending(Outcome.FAILED, next_state, None, error=error)
    end_attempt(ledger, begin(ledger, run_id), ending)
