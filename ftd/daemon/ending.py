"""The end of an attempt: its outcome, and all that follows from it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ftd.clock import now
from ftd.config import Config
from ftd.daemon.evidence import Over
from ftd.daemon.executed import executed_s
from ftd.daemon.launch import Launcher
from ftd.daemon.log import Log
from ftd.daemon.memory import MemoryKills
from ftd.daemon.outcome import told_outcome
from ftd.daemon.retry import decide
from ftd.daemon.waits import Waits
from ftd.layout import Home
from ftd.ledger import execution, failures, storage_waits, wishes
from ftd.ledger.db import Ledger
from ftd.ledger.execution import Ending, LiveAttempt
from ftd.ledger.ingest import ingest
from ftd.process import boot_id
from ftd.protocol import (
    CHECKPOINTS,
    EVENTS,
    EXIT_STORAGE,
    HEARTBEAT,
    LOG,
    RESULT,
    WORKER,
    WORKSPACE,
)  # fmt: skip
from ftd.states import Outcome, RunState


class Endings:
    """Ends attempts whose workers are gone for good; what becomes of their runs."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        config: Config,
        launcher: Launcher,
        waits: Waits,
        memory_kills: MemoryKills,
        log: Log,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._config = config
        self._launcher = launcher
        self._waits = waits
        self._memory_kills = memory_kills
        self._log = log
        self.num_failed = 0  # runs that came to failed since we started

    def end(self, attempt: LiveAttempt, over: Over, ran_s: float) -> None:
        """Record how an attempt ended; `ran_s` is how long it was executed when last seen alive.

        What needs a disk or the ledger may be refused for now: then nothing is recorded, and it is
        tried again.
        """
        status = self._launcher.exit_status(attempt.identity) if attempt.identity else None
        ending = self.of(attempt, over, ran_s, status)
        state = execution.end_attempt(self._ledger, attempt, ending)
        if attempt.identity:
            self._launcher.forget(attempt.identity)
        self.recorded(attempt, ending, state)

    def of(self, attempt: LiveAttempt, over: Over, ran_s: float, status: int | None) -> Ending:
        """How an attempt ended and what follows from it.  Its events are taken in first.

        `status` is its worker's exit status, None when it has none or nobody knows it.
        """
        directory = self._home.attempt(attempt.run_id, attempt.number)
        ingest(self._ledger, attempt.id, directory / EVENTS)
        outcome, error = told_outcome(attempt, over, status, directory / LOG, self._memory_kills)
        progressed = execution.progressed(self._ledger, attempt.id)
        decision = decide(
            outcome,
            num_failures=attempt.num_failures,
            progressed=progressed,
            retries=self._config.retries,
        )
        wait_s = decision.wait_s
        if outcome == Outcome.STOPPED and status == EXIT_STORAGE:
            wait_s = storage_waits.run_wait_s(self._ledger, attempt.run_id, progressed=progressed)
        if over.result is not None and over.result.missing is not None:
            wait_s = self._waits.next_look_s(over.result.missing)
        return Ending(
            outcome=outcome,
            next_state=decision.state,
            result=over.result,
            error=error,
            exit_status=status,
            not_before=now() + wait_s if wait_s else None,
            num_failures=decision.num_failures,
            ended_at=_ended_at(attempt, directory, ran_s),
        )

    def recorded(self, attempt: LiveAttempt, ending: Ending, state: RunState) -> None:
        """What is to be done once an ending is recorded, and the run's `state` with it."""
        outcome, error = ending.outcome, ending.error
        missing = ending.result.missing if ending.result is not None else None
        if missing is not None:
            self._waits.not_found(missing, attempt)
            error = None  # that was said when it was looked for first
        elif attempt.begun or outcome == Outcome.COMPLETED:
            self._waits.found(attempt)
        well = outcome == Outcome.COMPLETED or missing is not None
        say = self._log.info if well else self._log.warning
        say("ended", run=f"r{attempt.run_id}", outcome=outcome, state=state, error=error)
        if state == RunState.FAILED:
            self.num_failed += 1
        if state == RunState.DONE:
            self._drop_checkpoints(attempt.run_id)
        else:
            self._break_circuit(attempt.run_id)

    def _break_circuit(self, run_id: int) -> None:
        """Hold the experiments whose runs fail one after the other as soon as they start."""
        breaker = self._config.breaker
        for experiment in failures.quick_failures(
            self._ledger, run_id, breaker.failures, breaker.quick_s
        ):
            why = f"{breaker.failures} quick failures in a row; 'ftd release e{experiment}' goes on"
            held = wishes.hold_queued(self._ledger, experiment, who="circuit breaker", why=why)
            if held:
                self._log.warning("held", experiment=f"e{experiment}", runs=len(held), why=why)

    def _drop_checkpoints(self, run_id: int) -> None:
        """A finished run is known by its artifacts; nobody will resume it."""
        for name in (CHECKPOINTS, WORKSPACE):
            for folder in (self._home.run(run_id) / "attempts").glob(f"*/{name}"):
                shutil.rmtree(folder, ignore_errors=True)


def _ended_at(attempt: LiveAttempt, directory: Path, ran_s: float) -> float:
    """The start of an attempt plus the time that its worker executed it (UTC seconds).

    Nobody may have looked for days, and those are not to count as time computed: the last thing it
    wrote tells, unless somebody set the clock and the age of the process contradicts.
    """
    signs = [attempt.started_at]
    for name in (WORKER, HEARTBEAT, EVENTS, RESULT):
        with suppress(OSError):
            signs.append((directory / name).stat().st_mtime)
    told_s = min(max(signs), now()) - attempt.started_at
    worker = attempt.identity
    if worker is not None and worker.boot_id == boot_id():
        told_s = min(told_s, executed_s(worker, directory))
    return attempt.started_at + max(told_s, ran_s)
