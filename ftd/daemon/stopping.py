"""Asking workers to checkpoint and leave, and ending those that do not."""

from __future__ import annotations

import signal

from ftd import faults
from ftd.clock import monotonic, now
from ftd.config import Config
from ftd.daemon.log import Log
from ftd.files import seal_json
from ftd.layout import Home
from ftd.ledger import execution
from ftd.ledger.db import Ledger
from ftd.ledger.execution import LiveAttempt
from ftd.process import Identity, kill_session, send_signal
from ftd.protocol import STOP

GRACE_PER_CHECKPOINT = 3  # the grace is at least this many times the slowest checkpoint


class Stopping:
    """Who was asked to leave, and when: a cancel, a hold, a time limit."""

    def __init__(self, home: Home, ledger: Ledger, config: Config, log: Log) -> None:
        self._home = home
        self._ledger = ledger
        self._config = config
        self._log = log
        self._asked_at: dict[int, float] = {}  # attempt id -> when we saw its stop request

    def look(self, attempt: LiveAttempt, worker: Identity, executed_s: float) -> None:
        """Ask the living `worker` of an attempt to leave if somebody wishes it; later, insist."""
        if attempt.stop_requested_at is None:
            why = self._why(attempt, executed_s)
            if why is None:
                return
            self._request(attempt, why)
        if attempt.id not in self._asked_at:
            self._asked_at[attempt.id] = monotonic()
            send_signal(worker, signal.SIGTERM)
            return
        late = monotonic() - self._asked_at[attempt.id] > self._grace_s(attempt)
        if late and kill_session(worker):
            self._log.warning("did not leave in time: killed", run=f"r{attempt.run_id}")

    def forget(self, attempt: LiveAttempt) -> None:
        """The attempt is over."""
        self._asked_at.pop(attempt.id, None)

    def _request(self, attempt: LiveAttempt, why: str) -> None:
        directory = self._home.attempt(attempt.run_id, attempt.number)
        try:
            seal_json(directory / STOP, {"why": why, "at": now()})
        except OSError as error:  # without the file, the signal must do
            self._log.error("the system refuses", run=f"r{attempt.run_id}", error=str(error))
        faults.point("stop.requested")
        execution.record_stop(self._ledger, attempt.id, why)
        faults.point("stop.recorded")
        self._log.info("asked to checkpoint and leave", run=f"r{attempt.run_id}", why=why)

    def _why(self, attempt: LiveAttempt, executed_s: float) -> str | None:
        if not attempt.wanted:
            return "hold" if attempt.held else "cancel"
        limit = attempt.time_limit_s
        if limit is not None and attempt.spent_s + executed_s > limit:
            return "time_limit"
        return None

    def _grace_s(self, attempt: LiveAttempt) -> float:
        measured = execution.checkpoint_s(self._ledger, attempt.run_id)
        return max(self._config.stop.grace_s, GRACE_PER_CHECKPOINT * measured)
