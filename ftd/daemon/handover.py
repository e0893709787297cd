"""Workers that take turns: one that has ended an attempt well is given the next.

Who is next is decided as for any device that gets free; a worker is only kept when the same process
may execute that run, else it is let go.  The end of the one attempt and the claim of the other are
one transaction, so a worker is never without an attempt while it holds a device.
"""

from __future__ import annotations

from dataclasses import replace

from ftd import faults
from ftd.clock import now
from ftd.daemon.attempts import Attempts
from ftd.daemon.devices import Devices
from ftd.daemon.evidence import finished
from ftd.daemon.launch import Launcher
from ftd.daemon.starting import Starting
from ftd.layout import Home
from ftd.ledger import execution
from ftd.ledger.db import Ledger
from ftd.ledger.execution import LiveAttempt
from ftd.ledger.turns import next_turn
from ftd.process import Identity
from ftd.states import Outcome


class Handover:
    """Gives waiting workers their next attempts."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        devices: Devices,
        launcher: Launcher,
        attempts: Attempts,
        starting: Starting,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._devices = devices
        self._launcher = launcher
        self._attempts = attempts
        self._starting = starting

    def look(self, *, paused: bool) -> None:
        """See to every worker that waits; while `paused` nothing may start, and they leave."""
        for attempt in execution.live_attempts(self._ledger):
            worker = attempt.identity
            if worker is None or not self._launcher.waits(worker):
                continue
            given = False
            try:
                given = not paused and self._given_next(attempt, worker)
            finally:
                if not given:
                    self._launcher.release(worker)  # whatever went wrong is seen to as usual

    def _given_next(self, attempt: LiveAttempt, worker: Identity) -> bool:
        """End an attempt and give its worker the next; False when there is none for it."""
        directory = self._home.attempt(attempt.run_id, attempt.number)
        over = finished(directory, self._home.run_lock(attempt.run_id))
        if over is None or over.result is None or over.result.outcome != Outcome.COMPLETED:
            return False
        if self._in_use(attempt.device, worker):
            return False
        with self._ledger.transaction():
            run_id = next_turn(self._ledger, attempt.run_id, now())
            if run_id is None or self._has_unknown(run_id):
                return False
            concluded = self._attempts.conclude(attempt, over)
            successor = execution.start_attempt(
                self._ledger, run_id, attempt.device, worker=attempt.worker_id
            )
            assert successor is not None, "it was queued in this transaction"
            faults.point("turn.before_commit")
        faults.point("turn.claimed")
        concluded()
        successor = replace(successor, identity=worker)
        if not self._starting.hand_over(successor):
            return False
        self._attempts.watch(successor)
        return True

    def _in_use(self, device: str, worker: Identity) -> bool:
        """Whether somebody began to use a GPU too: people do not wait for our runs to end."""
        is_gpu = not device.startswith("cpu:")
        return is_gpu and self._devices.shared_with_others(device, worker.pid)

    def _has_unknown(self, run_id: int) -> bool:
        """Whether there are folders of attempts that have to be set aside first."""
        there = self._home.attempts(run_id)
        return bool(there) and not execution.attempt_numbers(self._ledger, run_id).issuperset(there)
