"""Starting attempts: a run is claimed for a device, ordered, and given to a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ftd import faults
from ftd.clock import now
from ftd.config import Config
from ftd.daemon.devices import Devices
from ftd.daemon.launch import Launcher, interpreter
from ftd.daemon.log import Log
from ftd.daemon.unknown import set_aside_unknown
from ftd.diskspace import is_storage_trouble
from ftd.files import seal_json
from ftd.layout import Home
from ftd.ledger import execution, storage_waits
from ftd.ledger.db import Ledger
from ftd.ledger.execution import Ending, LiveAttempt
from ftd.process import age_s
from ftd.protocol import EXIT_STORAGE, ORDER, Order
from ftd.states import Outcome, RunState

CALLED_OFF_S = 2.0  # until a run is tried again that could not begin
UNKNOWN_S = 60.0  # a worker that the ledger does not know may have hours to go


class Starting:
    """Begins attempts, and calls off those that cannot begin."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        config: Config,
        devices: Devices,
        launcher: Launcher,
        log: Log,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._config = config
        self._devices = devices
        self._launcher = launcher
        self._log = log

    def start(self, run_id: int, device: str) -> LiveAttempt | None:
        """Lock the device, claim the run, launch a worker; the attempt, if there is one now.

        None when somebody was faster, or it was called off.
        """
        lock = self._devices.lock(device)
        if lock is None:
            return None
        try:
            there = max(self._home.attempts(run_id), default=0)
            attempt = execution.start_attempt(self._ledger, run_id, device, after=there)
            if attempt is None:
                return None
            faults.point("start.claimed")
            with self._called_off_when_refused(attempt):
                return self._launch(attempt, lock)
        finally:
            os.close(lock)  # the worker holds it now
        return None

    def hand_over(self, attempt: LiveAttempt) -> bool:
        """Give an attempt, which was claimed for it, to a worker that waits; False: called off."""
        worker = attempt.identity
        assert worker is not None, "it waits"
        directory = self._home.attempt(attempt.run_id, attempt.number)
        with self._called_off_when_refused(attempt):
            self._order(attempt, worker_age_s=age_s(worker))
            faults.point("turn.ordered")
            self._launcher.hand_over(worker, directory)
            faults.point("turn.given")
            self._log_start(attempt)
            return True
        return False

    @contextmanager
    def _called_off_when_refused(self, attempt: LiveAttempt) -> Iterator[None]:
        """End an attempt whose worker cannot begin.  Raises OSError if nobody's could."""
        try:
            yield
        except OSError as error:
            why = f"cannot start a worker ({error})"
            if not is_storage_trouble(error):
                self._call_off(attempt, why)
                raise  # for the others it would be the same
            self._call_off_for_storage(attempt, why)

    def _launch(self, attempt: LiveAttempt, lock: int) -> LiveAttempt | None:
        unknown = set_aside_unknown(self._home, self._ledger, attempt)
        if unknown is None:
            why = "a worker that the ledger does not know holds the run"
            self._call_off(attempt, why, wait_s=UNKNOWN_S)
            return None
        for folder in unknown:
            self._log.warning("set aside: the ledger does not know it", folder=str(folder))
        order = self._order(attempt)
        faults.point("start.ordered")
        if not self._may_execute(attempt, order):
            return None
        if order.device_kind == "gpu" and not self._still_free(attempt):
            self._call_off(attempt, f"somebody else began to use {attempt.device}")
            return None
        directory = self._home.attempt(attempt.run_id, attempt.number)
        identity = self._launcher.launch(directory, order, lock)
        faults.point("start.spawned")
        if identity is not None:
            execution.record_spawn(self._ledger, attempt.worker_id, identity)
        faults.point("start.recorded")
        attempt = replace(attempt, identity=identity)
        self._log_start(attempt)
        return attempt

    def _log_start(self, attempt: LiveAttempt) -> None:
        self._log.info(
            "started",
            run=f"r{attempt.run_id}",
            attempt=attempt.number,
            device=attempt.device,
            pid=attempt.identity.pid if attempt.identity else None,
        )

    def _order(self, attempt: LiveAttempt, *, worker_age_s: float = 0.0) -> Order:
        """Seal the order of an attempt, whose worker has lived so long.  Raises OSError.

        The disk is not waited for here, where all runs would wait with it: the worker makes order
        and folders durable before it seals anything that depends on them.
        """
        order = Order(
            run_id=attempt.run_id,
            number=attempt.number,
            device_id=attempt.device,
            store=str(self._home.store),
            sources=str(self._home.sources),
            allow_downloads=self._config.allow_downloads,
            checkpoint_every_s=self._config.checkpoints.every_s,
            checkpoint_every_steps=self._config.checkpoints.every_steps,
            worker_age_s=worker_age_s,
            **execution.order_fields(self._ledger, attempt.run_id),
        )
        directory = self._home.attempt(attempt.run_id, attempt.number)
        directory.mkdir(parents=True, exist_ok=True)
        seal_json(directory / ORDER, order.as_json(), lasting=False)
        return order

    def _call_off(
        self,
        attempt: LiveAttempt,
        why: str,
        wait_s: float = CALLED_OFF_S,
        *,
        outcome: Outcome = Outcome.LOST,
        exit_status: int | None = None,
    ) -> None:
        ending = Ending(
            outcome,
            RunState.QUEUED,
            None,
            error=why,
            exit_status=exit_status,
            not_before=now() + wait_s,
            num_failures=attempt.num_failures,
        )
        execution.end_attempt(self._ledger, attempt, ending)
        self._log.warning("called off", run=f"r{attempt.run_id}", why=why)

    def _call_off_for_storage(self, attempt: LiveAttempt, why: str) -> None:
        """As if the worker had found that the disk takes nothing."""
        wait_s = storage_waits.run_wait_s(self._ledger, attempt.run_id, progressed=False)
        self._call_off(attempt, why, wait_s, outcome=Outcome.STOPPED, exit_status=EXIT_STORAGE)

    def _may_execute(self, attempt: LiveAttempt, order: Order) -> bool:
        """Whether the order's interpreter is allowed and there; ends the attempt if not."""
        python = interpreter(order)
        if python == sys.executable:
            return True
        if not self._config.jobs.allows(python):
            why = f"the interpreter {python} is not allowed by [jobs] interpreters in ftd.toml"
            refused = Ending(Outcome.REFUSED, RunState.FAILED, None, error=why)
            execution.end_attempt(self._ledger, attempt, refused)
            self._log.warning("refused", run=f"r{attempt.run_id}", why=why)
            return False
        if not os.access(python, os.X_OK):
            self._call_off(attempt, f"there is no interpreter {python}", wait_s=UNKNOWN_S)
            return False
        return True

    def _still_free(self, attempt: LiveAttempt) -> bool:
        """Look at a GPU once more between lease and launch: people do not wait for our ticks."""
        live = [a for a in execution.live_attempts(self._ledger) if a.id != attempt.id]
        seen = {device.id: device for device in self._devices.look(leases(live), refresh=True)}
        device = seen.get(attempt.device)
        # Our own lock shows as somebody's: only foreign use counts here.
        return device is not None and not device.in_use


def leases(live: list[LiveAttempt]) -> dict[str, int | None]:
    """The devices that the workers of `live` attempts hold, and the workers' pids."""
    return {a.device: a.identity.pid if a.identity else None for a in live}
