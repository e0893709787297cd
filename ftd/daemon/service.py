"""The daemon's loop: pull, follow, stop, schedule, launch; then sleep until something happens."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ftd.clock import monotonic, now
from ftd.config import Config, load
from ftd.daemon import presence, wake
from ftd.daemon.attempts import Attempts
from ftd.daemon.backups import NightlyBackup
from ftd.daemon.devices import Devices, Seen
from ftd.daemon.handover import Handover
from ftd.daemon.launch import LocalLauncher
from ftd.daemon.log import Log
from ftd.daemon.queue import Queue
from ftd.daemon.scheduler import assignments
from ftd.daemon.starting import Starting, leases
from ftd.diskspace import shortage
from ftd.layout import Home
from ftd.ledger import execution, inventory, scheduling, storage_waits, wishes
from ftd.ledger.db import Ledger, PassingTrouble, open_ledger, opened, upgrade
from ftd.ledger.execution import LiveAttempt
from ftd.ledger.health import require_intact
from ftd.ledger.rows import DeviceRow

IDLE_S = 10.0  # between two looks when nothing runs or waits; a wake-up comes at once anyway
WAITING_S = 3.0  # when runs wait for a device that somebody else uses
TROUBLE_S = 2.0
TURNS, LOOK = "turns", "look"  # what a sleep ends for


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
        self._launcher = LocalLauncher(warm=config.jobs.warm_start, share=config.jobs.share_workers)
        self._attempts = Attempts(home, ledger, config, self._launcher, log)
        known = {d.id: d.name for d in inventory.devices(ledger) if d.kind == "gpu"}
        self._devices = Devices(config, known)
        self._starting = Starting(home, ledger, config, self._devices, self._launcher, log)
        self._handover = Handover(
            home, ledger, self._devices, self._launcher, self._attempts, self._starting
        )
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
                pause_s = self._safely(partial(self._tick, until_idle=until_idle))
                if pause_s is None:
                    self._log.info("idle", failed=self._attempts.num_failed)
                    return 1 if self._attempts.num_failed else 0
                due = monotonic() + pause_s
                while self._sleep(due - monotonic(), fifo, bell.fileno()) == TURNS:
                    self._safely(self._give_turns)
                    if monotonic() > due:  # whoever takes turns, the others are looked at too
                        break
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

    def _safely(self, look: Callable[[], float | None]) -> float | None:
        """Take a look; what it returns, or TROUBLE_S when the ledger or disk refuses for now."""
        try:
            found = look()
        except (PassingTrouble, OSError) as error:
            if str(error) != self._trouble:
                self._log.error("the ledger or the system refuses; trying again", error=str(error))
            self._trouble = str(error)
            return TROUBLE_S
        if self._trouble is not None:
            self._log.info("going on", after=self._trouble)
            self._trouble = None
        return found

    def _give_turns(self) -> None:
        """See to workers that wait for another attempt, and to nothing else."""
        self._handover.look(paused=self._paused())

    def _tick(self, *, until_idle: bool) -> float | None:
        """Look at everything; seconds to sleep, None to leave because nothing is left to do."""
        pause_s = self._look_at_all()
        return None if until_idle and self._idle() else pause_s

    def _look_at_all(self) -> float:
        while self._queue.pull():
            pass
        self._handover.look(paused=self._paused())
        live = self._attempts.follow()
        paused = self._paused()  # asked again: attempts that just ended may be a reason
        devices = self._look(live)
        started = 0
        if not paused:
            for run_id, device in assignments(self._ledger, devices, now()):
                attempt = self._starting.start(run_id, device)
                if attempt is not None:
                    self._attempts.watch(attempt)
                started += 1
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

    def _look(self, live: list[LiveAttempt]) -> list[Seen]:
        return self._devices.look(leases(live))

    def _admit(self, experiment: int) -> None:
        wishes.admit(self._ledger, experiment)
        self._log.info("admitted", experiment=f"e{experiment}")

    def _idle(self) -> bool:
        """Whether nothing can go on without a person."""
        if self._queue.size() or execution.live_attempts(self._ledger):
            return False
        kinds = ["cpu", "gpu"] if self._devices.has_gpus() else ["cpu"]
        return scheduling.num_hopeful(self._ledger, kinds) == 0

    def _sleep(self, pause_s: float, fifo: int, bell: int) -> str:
        """Until a wake-up, a signal, the end of a worker, or `pause_s` seconds have passed.

        TURNS when all that happened is that workers wait for another attempt, else LOOK.
        """
        poll = select.poll()
        # What could not be recorded would end every sleep at once.
        pidfds = () if self._trouble else self._attempts.pidfds()
        turns = set() if self._trouble else set(self._launcher.channels())
        for descriptor in (fifo, bell, *pidfds, *turns):
            poll.register(descriptor, select.POLLIN)
        happened = {descriptor for descriptor, _ in poll.poll(max(pause_s, 0) * 1000)}
        wake.drain(fifo)
        wake.drain(bell)
        return TURNS if happened and happened <= turns else LOOK


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
