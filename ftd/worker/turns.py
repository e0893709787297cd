"""Attempts one after the other in one process, and what of the process outlives each.

Where their job allows it (:attr:`ftd.job.Job.shares_worker`), runs take turns in a worker: it saves
each of them the start of a process.  Over a socket that the daemon made, a path each way:

    -> the directory of the attempt that has ended well      it could take another
    <- the directory of the next                             closed instead: leave

The worker holds its device all along, the lock of a run only while it executes that run.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from ftd import faults
from ftd.files import try_lock
from ftd.protocol import LOG, MARK
from ftd.worker.between import Between
from ftd.worker.log import say

LOOK_EVERY_S = 0.5  # whether to leave, while a daemon that is stopped says nothing
MAX_PATH_BYTES = 1 << 16


class Process:
    """This process as a worker: whose run it executes, and whether it was asked to leave."""

    def __init__(self) -> None:
        self.may_go_on = False  # the last attempt allows another
        self.leaving = False  # somebody sent a SIGTERM
        self._lock: int | None = None
        os.register_at_fork(after_in_child=self._become_helper)

    def take(self, lock: Path) -> int | None:
        """Take the lock of a run, held until its release or this process's death; None: held."""
        self.may_go_on = False
        self._lock = try_lock(lock)
        return self._lock

    def release(self) -> None:
        """The attempt has ended well, and nothing is written for it any more."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self.may_go_on = not self.leaving

    def listen(self, leave: Callable[[], None]) -> None:
        """From now on call `leave` at a SIGTERM, and at once if there was one."""

        def asked(*_: object) -> None:
            self.leaving = True
            leave()

        signal.signal(signal.SIGTERM, asked)
        if self.leaving:
            leave()

    def _become_helper(self) -> None:
        """In a process that a job forked: it is no worker.

        It must not hold the run's lock when it outlives us, and a SIGTERM ends it: libraries end
        their helpers so, and wait for it.
        """
        if self._lock is not None:
            os.close(self._lock)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Turns:
    """The worker's end of the socket."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._between = Between()

    def next(self, directory: Path, process: Process) -> Path | None:
        """The directory of the attempt after the one in `directory`; None when there is none."""
        if not process.may_go_on:
            return None
        left = self._between.left(directory)
        if left is not None:
            say(f"leaves, so that the next run begins without: {left}")
            return None
        faults.point("turn.offered")
        try:
            self._channel.send(os.fsencode(directory))
            following = self._answer(process)
        except ConnectionError:  # the daemon is gone; the next one starts workers of its own
            return None
        return _turn_to(Path(os.fsdecode(following))) if following else None

    def _answer(self, process: Process) -> bytes:
        """What the daemon says; nothing when it leaves us, or we shall leave."""
        wait_s = LOOK_EVERY_S
        while not select.select([self._channel], [], [], wait_s)[0]:
            if wait_s == 0:
                return b""
            if process.leaving:
                wait_s = 0  # what it has said until now is still taken: it counts on us
        return self._channel.recv(MAX_PATH_BYTES)


def _turn_to(directory: Path) -> Path:
    """Stand in the attempt's folder, write into its log, be known as its worker."""
    os.chdir(directory)
    os.environ[MARK] = str(directory)
    log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    return directory
