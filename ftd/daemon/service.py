"""The daemon's loop: pull, follow, stop, schedule, launch; then sleep until something happens."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import suppress

from ftd import faults
from ftd.clock import now
from ftd.config import Config, load
from ftd.daemon import presence, wake
from ftd.daemon.attempts import Attempts
from ftd.daemon.backups import NightlyBackup
from ftd.daemon.devices import Devices, Seen
from ftd.daemon.launch import LocalLauncher, interpreter
from ftd.daemon.log import Log
from ftd.daemon.queue import Queue
from ftd.daemon.scheduler import assignments
from ftd.daemon.unknown import set_aside_unknown
from ftd.diskspace import is_storage_trouble, shortage
from ftd.files import make_folder, seal_json
from ftd.layout import Home
from ftd.ledger import execution, inventory, scheduling, storage_waits, wishes
from ftd.ledger.db import Ledger, PassingTrouble, open_ledger, opened, upgrade
from ftd.ledger.execution import Ending, LiveAttempt
from ftd.ledger.health import require_intact
from ftd.ledger.rows import DeviceRow
from ftd.protocol import EXIT_STORAGE, ORDER, Order
from ftd.states import Outcome, RunState

IDLE_S = 10.0  # between two looks when nothing runs or waits; a wake-up comes at once anyway
WAITING_S = 3.0  # when runs wait for a device that somebody else uses
TROUBLE_S = 2.0
UNKNOWN_S = 60.0  # a worker that the ledger does not know may have hours to go


def serve(home: Home, *, until_idle: bool, json_log: bool) -> int:
    """Be the daemon of `home` until SIGTERM or SIGINT, or until nothing is left to do.

    Workers go on when the daemon leaves; the next one adopts them.  Returns 1 when `until_idle`
    and a run failed meanwhile, else 0.  Raises DaemonRunning, ConfigError, LedgerError.
    """
    config = load(home)
    open_ledger_if_new(home)
    lock = presence.claim(home)
    log = Log(home, json_lines=json_log)
    try:
        for name in upgrade(home):
            log.info("upgraded the ledger", migration=name)
        with opened(home) as ledger:
            require_intact(home, ledger)
            return _Service(home, config, ledger, log).run(until_idle=until_idle)
    finally:
        log.close()
        with suppress(OSError):  # it says nothing once its process is gone
            home.daemon_identity.unlink()
        os.close(lock)


def open_ledger_if_new(home: Home) -> None:
    """Make home and ledger where there is none yet; an existing ledger is left as it is."""
    if not home.ledger.exists():
        open_ledger(home, create=True).close()


class _Service:
    def __init__(self, home: Home, config: Config, ledger: Ledger, log: Log) -> None:
        self._home = home
        self._config = config
        self._ledger = ledger
        self._log = log
        self._queue = Queue(ledger, admit=self._admit)
        self._launcher = LocalLauncher(warm=config.jobs.warm_start)
        self._attempts = Attempts(home, ledger, config, self._launcher, log)
        known = {d.id: d.name for d in inventory.devices(ledger) if d.kind == "gpu"}
        self._devices = Devices(config, known)
        self._backup = NightlyBackup(home, config.ledger, log)
        self._pause: str | None = None  # why nothing starts
        self._trouble: str | None = None
        self._leaving = False

    def run(self, *, until_idle: bool) -> int:
        """The loop itself."""
        fifo = wake.listen(self._home.wake)
        bell, ringer = socket.socketpair()  # makes a signal end the sleep
        for end in (bell, ringer):
            end.setblocking(False)
        signal.set_wakeup_fd(ringer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        self._log.info("serving", home=str(self._home.root), pid=os.getpid())
        try:
            self._attempts.adopt()
            while not self._leaving:
                pause_s = self._tick_safely(until_idle=until_idle)
                if pause_s is None:
                    self._log.info("idle", failed=self._attempts.num_failed)
                    return 1 if self._attempts.num_failed else 0
                self._sleep(pause_s, fifo, bell.fileno())
            self._log.info("leaving; workers go on and will be adopted")
            return 0
        finally:
            self._launcher.close()
            signal.set_wakeup_fd(-1)
            os.close(fifo)
            bell.close()
            ringer.close()

    def _leave(self, *_: object) -> None:
        self._leaving = True

    def _tick_safely(self, *, until_idle: bool) -> float | None:
        """One tick; seconds to sleep, None to leave because nothing is left to do.

        A ledger or disk that refuses for now is waited for.
        """
        try:
            pause_s = self._tick()
            done = until_idle and self._idle()
        except (PassingTrouble, OSError) as error:
            if str(error) != self._trouble:
                self._log.error("the ledger or the system refuses; trying again", error=str(error))
            self._trouble = str(error)
            return TROUBLE_S
        if self._trouble is not None:
            self._log.info("going on", after=self._trouble)
            self._trouble = None
        return None if done else pause_s

    def _tick(self) -> float:
        while self._queue.pull():
            pass
        live = self._attempts.follow()
        devices = self._look(live)
        started = 0
        if not self._paused():
            for run_id, device in assignments(self._ledger, devices, now()):
                started += self._start(run_id, device)
        if started:
            devices = self._look(execution.live_attempts(self._ledger))
        inventory.write(self._ledger, [_row(device) for device in devices])
        self._backup.look()
        if live or started:
            return self._config.daemon.tick_s
        return WAITING_S if scheduling.num_hopeful(self._ledger, ["gpu", "cpu"]) else IDLE_S

    def _paused(self) -> bool:
        """Whether nothing may start for the disk's sake; says so when that changes."""
        why = shortage(self._home.root) or storage_waits.pause(self._ledger, now())
        if why is not None and self._pause is None:
            self._log.warning("nothing starts for now", why=why)
        elif why is None and self._pause is not None:
            self._log.info("runs start again")
        self._pause = why
        return why is not None

    def _look(self, live: list[LiveAttempt], *, refresh: bool = False) -> list[Seen]:
        leases = {a.device: a.identity.pid if a.identity else None for a in live}
        return self._devices.look(leases, refresh=refresh)

    def _admit(self, experiment: int) -> None:
        wishes.admit(self._ledger, experiment)
        self._log.info("admitted", experiment=f"e{experiment}")

    def _start(self, run_id: int, device: str) -> bool:
        """Lock the device, claim the run, launch a worker.  False when somebody was faster."""
        lock = self._devices.lock(device)
        if lock is None:
            return False
        try:
            there = max(self._home.attempts(run_id), default=0)
            attempt = execution.start_attempt(self._ledger, run_id, device, after=there)
            if attempt is None:
                return False
            faults.point("start.claimed")
            try:
                self._launch(attempt, lock)
            except OSError as error:
                why = f"cannot start a worker ({error})"
                if not is_storage_trouble(error):
                    self._call_off(attempt, why)
                    raise  # for the others it would be the same
                self._call_off_for_storage(attempt, why)
                return False
        finally:
            os.close(lock)  # the worker holds it now
        return True

    def _launch(self, attempt: LiveAttempt, lock: int) -> None:
        unknown = set_aside_unknown(self._home, self._ledger, attempt)
        if unknown is None:
            why = "a worker that the ledger does not know holds the run"
            self._call_off(attempt, why, wait_s=UNKNOWN_S)
            return
        for folder in unknown:
            self._log.warning("set aside: the ledger does not know it", folder=str(folder))
        directory = self._home.attempt(attempt.run_id, attempt.number)
        make_folder(directory)
        order = self._order(attempt)
        seal_json(directory / ORDER, order.as_json())
        faults.point("start.ordered")
        if not self._may_execute(attempt, order):
            return
        if order.device_kind == "gpu" and not self._still_free(attempt):
            self._call_off(attempt, f"somebody else began to use {attempt.device}")
            return
        identity = self._launcher.launch(directory, order, lock)
        faults.point("start.spawned")
        if identity is not None:
            execution.record_spawn(self._ledger, attempt.worker_id, identity)
        faults.point("start.recorded")
        self._log.info(
            "started",
            run=f"r{attempt.run_id}",
            attempt=attempt.number,
            device=attempt.device,
            pid=identity.pid if identity else None,
        )

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
        seen = {device.id: device for device in self._look(live, refresh=True)}
        device = seen.get(attempt.device)
        # Our own lock shows as somebody's: only foreign use counts here.
        return device is not None and not device.in_use

    def _call_off(self, attempt: LiveAttempt, why: str, wait_s: float = TROUBLE_S) -> None:
        ending = Ending(
            Outcome.LOST,
            RunState.QUEUED,
            None,
            error=why,
            not_before=now() + wait_s,
            num_failures=attempt.num_failures,
        )
        execution.end_attempt(self._ledger, attempt, ending)
        self._log.warning("called off", run=f"r{attempt.run_id}", why=why)

    def _call_off_for_storage(self, attempt: LiveAttempt, why: str) -> None:
        """As if the worker had found that the disk takes nothing."""
        wait_s = storage_waits.run_wait_s(self._ledger, attempt.run_id, progressed=False)
        ending = Ending(
            Outcome.STOPPED,
            RunState.QUEUED,
            None,
            error=why,
            exit_status=EXIT_STORAGE,
            not_before=now() + wait_s,
            num_failures=attempt.num_failures,
        )
        execution.end_attempt(self._ledger, attempt, ending)
        self._log.warning("called off", run=f"r{attempt.run_id}", why=why)

    def _order(self, attempt: LiveAttempt) -> Order:
        fields = execution.order_fields(self._ledger, attempt.run_id)
        return Order(
            run_id=attempt.run_id,
            number=attempt.number,
            device_id=attempt.device,
            store=str(self._home.store),
            sources=str(self._home.sources),
            allow_downloads=self._config.allow_downloads,
            checkpoint_every_s=self._config.checkpoints.every_s,
            checkpoint_every_steps=self._config.checkpoints.every_steps,
            **fields,
        )

    def _idle(self) -> bool:
        """Whether nothing can go on without a person."""
        if self._queue.size() or execution.live_attempts(self._ledger):
            return False
        kinds = ["cpu", "gpu"] if self._devices.has_gpus() else ["cpu"]
        return scheduling.num_hopeful(self._ledger, kinds) == 0

    def _sleep(self, pause_s: float, fifo: int, bell: int) -> None:
        """Until a wake-up, a signal, the end of a worker, or `pause_s` seconds have passed."""
        poll = select.poll()
        # The end of a worker that could not be recorded would end every sleep at once.
        workers = () if self._trouble else self._attempts.pidfds()
        for descriptor in (fifo, bell, *workers):
            poll.register(descriptor, select.POLLIN)
        poll.poll(pause_s * 1000)
        wake.drain(fifo)
        wake.drain(bell)


def _row(device: Seen) -> DeviceRow:
    return DeviceRow(
        id=device.id,
        kind=device.kind,
        name=device.name,
        memory_bytes=device.memory_bytes,
        state=device.state,
        detail=device.detail,
        present=device.state != "missing",
        seen_at=now(),
        run_id=None,
    )
