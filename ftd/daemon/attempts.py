"""Following live attempts: take in their events, ask them to stop, end them when they are over."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ftd import faults
from ftd.clock import monotonic, now
from ftd.config import Config
from ftd.daemon.evidence import Alive, Blocked, Over, examine
from ftd.daemon.launch import Launcher
from ftd.daemon.log import Log
from ftd.daemon.outcome import told_outcome
from ftd.daemon.remains import end_remains, holders
from ftd.daemon.retry import decide
from ftd.daemon.waits import Waits
from ftd.files import read_json, seal_json
from ftd.layout import Home
from ftd.ledger import execution, storage_waits, wishes
from ftd.ledger.db import Ledger
from ftd.ledger.execution import Ending, LiveAttempt
from ftd.ledger.ingest import ingest
from ftd.process import Identity, age_s, kill_session, open_pidfd, send_signal
from ftd.protocol import (
    CHECKPOINTS,
    EVENTS,
    EXIT_STORAGE,
    HEARTBEAT,
    LOG,
    RESULT,
    STOP,
    WORKER,
    WORKSPACE,
)
from ftd.states import Outcome, RunState

GRACE_PER_CHECKPOINT = 3  # the grace is at least this many times the slowest checkpoint
BLOCKED_SAID_S = 3.0  # a run's lock that is held for so long without a worker is worth a word
LINGER_S = 30.0  # a worker that sealed its result has this long to exit


class Attempts:
    """The live attempts of one home, whoever launched their workers."""

    def __init__(
        self, home: Home, ledger: Ledger, config: Config, launcher: Launcher, log: Log
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._config = config
        self._launcher = launcher
        self._log = log
        self._asked_at: dict[int, float] = {}  # attempt id -> when we saw its stop request
        self._sealed_at: dict[int, float] = {}
        self._blocked: dict[int, float] = {}  # attempt id -> since when; infinity: it was said
        self._seen_at: dict[int, float] = {}  # attempt id -> when its worker was last alive
        self._troubles: dict[int, set[str]] = {}  # what was said already
        self._pidfds: dict[int, int] = {}
        self._waits = Waits(ledger, config.retries, log)
        self.num_failed = 0  # runs that came to failed since we started

    def follow(self) -> list[LiveAttempt]:
        """Look at every live attempt once; those that still live.

        Files that cannot be read or written are the trouble of their attempt alone.
        """
        self._waits.review()
        attempts = execution.live_attempts(self._ledger)
        self._take_in_events(attempts)
        over = set()
        for attempt in attempts:
            with self._contained(attempt):
                if self._look(attempt):
                    over.add(attempt.id)
        return [attempt for attempt in attempts if attempt.id not in over]

    def pidfds(self) -> list[int]:
        """Descriptors that become readable when a worker ends."""
        return list(self._pidfds.values())

    def adopt(self) -> None:
        """Say which workers of an earlier daemon are still at work."""
        for attempt in execution.live_attempts(self._ledger):
            found = self._examine(attempt)
            if isinstance(found, Alive):
                faults.point("adopt.found")
                self._log.info("adopted", run=f"r{attempt.run_id}", pid=found.identity.pid)
                with self._ledger.transaction():
                    execution.record(
                        self._ledger, "adopted", run=attempt.run_id, attempt=attempt.number
                    )

    def _take_in_events(self, attempts: list[LiveAttempt]) -> None:
        grown = []
        for attempt in attempts:
            stream = self._directory(attempt) / EVENTS
            with self._contained(attempt), suppress(FileNotFoundError):
                if stream.stat().st_size > attempt.events_offset:
                    grown.append((attempt, stream))
        if grown:
            with self._ledger.transaction():  # one commit for all of them
                for attempt, stream in grown:
                    with self._contained(attempt):
                        ingest(self._ledger, attempt.id, stream)

    @contextmanager
    def _contained(self, attempt: LiveAttempt) -> Iterator[None]:
        """Say once what the system refuses for an attempt, and go on with the others."""
        try:
            yield
        except OSError as error:
            said = self._troubles.setdefault(attempt.id, set())
            if str(error) not in said:
                said.add(str(error))
                self._log.error("the system refuses", run=f"r{attempt.run_id}", error=str(error))

    def _look(self, attempt: LiveAttempt) -> bool:
        """Whether the attempt is over (and was ended)."""
        found = self._examine(attempt)
        match found:
            case Alive():
                self._watch(attempt, found)
                if attempt.begun:
                    self._waits.found(attempt)
                self._stop_if_wished(attempt, found)
                return False
            case Blocked():
                self._close_pidfd(attempt)  # it stays readable, so it would end every sleep
                if not self._end_remains(attempt):
                    self._say_blocked(attempt)
                return False
            case Over():
                self._end_remains(attempt)
                self._end(attempt, found)
                return True

    def _end_remains(self, attempt: LiveAttempt) -> int:
        directory = self._directory(attempt)
        said = Identity.from_json(read_json(directory / WORKER))
        number = sum(
            end_remains(worker, directory)
            for worker in {said, attempt.identity}
            if worker is not None
        )
        if number:
            self._log.info("ended what its worker left", run=f"r{attempt.run_id}", processes=number)
        return number

    def _say_blocked(self, attempt: LiveAttempt) -> None:
        """Say once who keeps a run from going on, though its worker is gone.

        Not at once: a worker that an earlier daemon just started may be about to say who it is.
        """
        if monotonic() - self._blocked.setdefault(attempt.id, monotonic()) < BLOCKED_SAID_S:
            return
        lock = self._home.run_lock(attempt.run_id)
        pids = " and ".join(map(str, holders(lock))) or "(cannot be seen)"
        why = f"its worker is gone, but process {pids} holds {lock}; it goes on when that ends"
        with self._ledger.transaction():
            execution.record(
                self._ledger,
                "blocked",
                run=attempt.run_id,
                attempt=attempt.number,
                data={"why": why},
            )
        self._blocked[attempt.id] = math.inf
        self._log.warning("blocked", run=f"r{attempt.run_id}", why=why)

    def _examine(self, attempt: LiveAttempt) -> Alive | Over | Blocked:
        lock = self._home.run_lock(attempt.run_id)
        return examine(self._directory(attempt), lock, attempt.identity)

    def _watch(self, attempt: LiveAttempt, found: Alive) -> None:
        self._seen_at[attempt.id] = now()
        if attempt.id not in self._pidfds:
            descriptor = open_pidfd(found.identity)
            if descriptor is not None:
                self._pidfds[attempt.id] = descriptor
        if found.sealed:
            since = self._sealed_at.setdefault(attempt.id, monotonic())
            if monotonic() - since > LINGER_S:
                self._log.warning("sealed its result but does not exit", run=f"r{attempt.run_id}")
                kill_session(found.identity)

    def _stop_if_wished(self, attempt: LiveAttempt, found: Alive) -> None:
        if attempt.stop_requested_at is None:
            why = self._why_stop(attempt, found)
            if why is None:
                return
            with self._contained(attempt):  # without the file, the signal must do
                seal_json(self._directory(attempt) / STOP, {"why": why, "at": now()})
            faults.point("stop.requested")
            execution.record_stop(self._ledger, attempt.id, why)
            faults.point("stop.recorded")
            self._log.info("asked to checkpoint and leave", run=f"r{attempt.run_id}", why=why)
        if attempt.id not in self._asked_at:
            self._asked_at[attempt.id] = monotonic()
            send_signal(found.identity, signal.SIGTERM)
            return
        late = monotonic() - self._asked_at[attempt.id] > self._grace_s(attempt)
        if late and kill_session(found.identity):
            self._log.warning("did not leave in time: killed", run=f"r{attempt.run_id}")

    def _why_stop(self, attempt: LiveAttempt, found: Alive) -> str | None:
        if not attempt.wanted:
            return "hold" if attempt.held else "cancel"
        limit = attempt.time_limit_s
        if limit is not None and attempt.spent_s + age_s(found.identity) > limit:
            return "time_limit"
        return None

    def _grace_s(self, attempt: LiveAttempt) -> float:
        measured = execution.checkpoint_s(self._ledger, attempt.run_id)
        return max(self._config.stop.grace_s, GRACE_PER_CHECKPOINT * measured)

    def _end(self, attempt: LiveAttempt, over: Over) -> None:
        directory = self._directory(attempt)
        status = self._launcher.exit_status(attempt.identity) if attempt.identity else None
        ingest(self._ledger, attempt.id, directory / EVENTS)
        outcome, error = told_outcome(attempt, over, status, directory / LOG)
        progressed = execution.progressed(self._ledger, attempt.id)
        decision = decide(
            outcome,
            num_failures=attempt.num_failures,
            progressed=progressed,
            retries=self._config.retries,
        )
        wait_s = decision.wait_s
        if outcome == Outcome.STOPPED and status == EXIT_STORAGE:
            wait_s = storage_waits.run_wait_s(
                self._ledger, attempt.run_id, progressed=progressed
            )
        missing = over.result.missing if over.result is not None else None
        if missing is not None:
            wait_s = self._waits.next_look_s(missing)
        ending = Ending(
            outcome=outcome,
            next_state=decision.state,
            result=over.result,
            error=error,
            exit_status=status,
            not_before=now() + wait_s if wait_s else None,
            num_failures=decision.num_failures,
            ended_at=self._last_sign(attempt),
        )
        state = execution.end_attempt(self._ledger, attempt, ending)
        self._forget(attempt)
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
        for experiment in execution.quick_failures(
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

    def _forget(self, attempt: LiveAttempt) -> None:
        for seen in (
            self._seen_at, self._asked_at, self._sealed_at, self._blocked, self._troubles
        ):  # fmt: skip
            seen.pop(attempt.id, None)
        self._close_pidfd(attempt)

    def _close_pidfd(self, attempt: LiveAttempt) -> None:
        descriptor = self._pidfds.pop(attempt.id, None)
        if descriptor is not None:
            os.close(descriptor)

    def _last_sign(self, attempt: LiveAttempt) -> float:
        """When an attempt's worker was last seen alive or wrote something (UTC seconds).

        Nobody may have looked for days, and those are not to count as time computed.
        """
        signs = [attempt.started_at, self._seen_at.get(attempt.id, 0.0)]
        for name in (WORKER, HEARTBEAT, EVENTS, RESULT):
            with suppress(OSError):
                signs.append((self._directory(attempt) / name).stat().st_mtime)
        return min(max(signs), now())

    def _directory(self, attempt: LiveAttempt) -> Path:
        return self._home.attempt(attempt.run_id, attempt.number)
