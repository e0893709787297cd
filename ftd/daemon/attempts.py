"""Following live attempts: take in their events, look after their workers, end what is over."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ftd import faults
from ftd.clock import monotonic
from ftd.config import Config
from ftd.daemon.ending import Endings
from ftd.daemon.evidence import Alive, Blocked, Over, examine
from ftd.daemon.executed import executed_s
from ftd.daemon.launch import Launcher
from ftd.daemon.log import Log
from ftd.daemon.memory import MemoryKills
from ftd.daemon.remains import end_remains, holders
from ftd.daemon.stopping import Stopping
from ftd.daemon.waits import Waits
from ftd.files import read_json
from ftd.layout import Home
from ftd.ledger import execution
from ftd.ledger.db import Ledger
from ftd.ledger.execution import LiveAttempt
from ftd.ledger.ingest import ingest
from ftd.process import Identity, kill_session, open_pidfd
from ftd.protocol import EVENTS, WORKER

BLOCKED_SAID_S = 3.0  # a run's lock that is held for so long without a worker is worth a word
LINGER_S = 30.0  # a worker that sealed its result has this long to exit


class Attempts:
    """The live attempts of one home, whoever launched their workers."""

    def __init__(
        self, home: Home, ledger: Ledger, config: Config, launcher: Launcher, log: Log
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._log = log
        self._waits = Waits(ledger, config.retries, log)
        self._stopping = Stopping(home, ledger, config, log)
        self._memory_kills = MemoryKills()
        self._endings = Endings(
            home, ledger, config, launcher, self._waits, self._memory_kills, log
        )
        self._sealed_at: dict[int, float] = {}
        self._blocked: dict[int, float] = {}  # attempt id -> since when; infinity: it was said
        self._ran_s: dict[int, float] = {}  # attempt id -> executed so long when last seen alive
        self._troubles: dict[int, set[str]] = {}  # what was said already
        self._pidfds: dict[int, int] = {}

    @property
    def num_failed(self) -> int:
        """Runs that came to failed since we started."""
        return self._endings.num_failed

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
        self._memory_kills.look()
        return [attempt for attempt in attempts if attempt.id not in over]

    def conclude(self, attempt: LiveAttempt, over: Over) -> Callable[[], None]:
        """Record, in the caller's transaction, the end of an attempt whose worker goes on.

        What is to be called once that is committed.
        """
        ending = self._endings.of(attempt, over, self._ran_s.get(attempt.id, 0.0), None)
        state = execution.end_attempt(self._ledger, attempt, ending, with_worker=False)

        def committed() -> None:
            self._forget(attempt)
            self._endings.recorded(attempt, ending, state)

        return committed

    def watch(self, attempt: LiveAttempt) -> None:
        """Be woken when the worker of an attempt that was just given to it ends."""
        if attempt.identity is not None and attempt.id not in self._pidfds:
            descriptor = open_pidfd(attempt.identity)
            if descriptor is not None:
                self._pidfds[attempt.id] = descriptor

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
                self._stopping.look(attempt, found.identity, self._ran_s[attempt.id])
                return False
            case Blocked():
                self._close_pidfd(attempt)  # it stays readable, so it would end every sleep
                if not self._end_remains(attempt):
                    self._say_blocked(attempt)
                return False
            case Over():
                self._end_remains(attempt)
                self._endings.end(attempt, found, self._ran_s.get(attempt.id, 0.0))
                self._forget(attempt)
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
        self._ran_s[attempt.id] = executed_s(found.identity, self._directory(attempt))
        self.watch(replace(attempt, identity=found.identity))
        if found.sealed:
            since = self._sealed_at.setdefault(attempt.id, monotonic())
            if monotonic() - since > LINGER_S:
                self._log.warning("sealed its result but does not exit", run=f"r{attempt.run_id}")
                kill_session(found.identity)

    def _forget(self, attempt: LiveAttempt) -> None:
        for seen in (self._ran_s, self._sealed_at, self._blocked, self._troubles):
            seen.pop(attempt.id, None)
        self._stopping.forget(attempt)
        self._close_pidfd(attempt)

    def _close_pidfd(self, attempt: LiveAttempt) -> None:
        descriptor = self._pidfds.pop(attempt.id, None)
        if descriptor is not None:
            os.close(descriptor)

    def _directory(self, attempt: LiveAttempt) -> Path:
        return self._home.attempt(attempt.run_id, attempt.number)
