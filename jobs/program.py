"""A program in a process group of its own: what it prints line by line, how it ends, how it leaves.

Nothing of it outlives it: when it ends, whatever it left in its group is killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ftd.clock import monotonic
from ftd.errors import InputError

LOOK_EVERY_S = 0.1
MAX_LINE_BYTES = 1 << 16  # a longer one is told in parts


class Program:
    """A program that runs; `told` is called with every line of its standard output.

    Its output goes on to ours, which is the run's log, in whole lines as far as it prints them
    without a pause; its standard error is ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        told: Callable[[str], None],
    ) -> None:
        self._told = told
        self._pending = b""  # of a line that has not ended
        self._num_logged = 0  # bytes of it
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            raise InputError(
                f"cannot start {command[0]} ({error.strerror})",
                fix="Check the command and the daemon's PATH; `script:` takes the run's own python",
            ) from error
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)

    def look(self) -> int | None:
        """Take in what is printed for a moment; the exit status once it has ended.

        A negative status is the signal that ended it.
        """
        open_still = self._read(LOOK_EVERY_S)
        if not open_still:
            self._log(self._pending)
        ended = os.waitid(
            os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG
        )  # not reaped yet: so its group's number is still its own
        if ended is None:
            if not open_still:
                select.select([], [], [], LOOK_EVERY_S)
            return None
        while self._read(0):
            pass
        self._end_line()
        return self._reap()

    def leave(self, grace_s: float) -> None:
        """Ask it to leave by SIGTERM, take in what it still says, kill it after `grace_s`."""
        self._signal(signal.SIGTERM)
        asked_at = monotonic()
        while monotonic() - asked_at < grace_s:
            if self.look() is not None:
                return
        self.kill()

    def kill(self) -> None:
        """End it now, if it has not ended."""
        if self._process.returncode is None:
            self._reap()

    def _reap(self) -> int:
        self._signal(signal.SIGKILL)
        return self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self, wait_s: float) -> bool:
        """Take in what there is; False when there is nothing now, or no more."""
        if not select.select([self._output], [], [], wait_s)[0]:
            return False
        data = os.read(self._output, MAX_LINE_BYTES)
        *lines, last = (self._pending + data).split(b"\n")
        for line in lines:
            self._take(line, line + b"\n")
        self._pending = last
        if len(self._pending) > MAX_LINE_BYTES:
            self._end_line()
        return bool(data)

    def _end_line(self) -> None:
        if self._pending:
            self._take(self._pending, self._pending)
            self._pending = b""

    def _take(self, line: bytes, logged: bytes) -> None:
        self._log(logged)
        self._num_logged = 0
        self._told(line.decode(errors="replace"))

    def _log(self, line: bytes) -> None:
        """What of a line is not in the log yet."""
        if line[self._num_logged :]:
            sys.stdout.buffer.write(line[self._num_logged :])
            sys.stdout.flush()
            self._num_logged = len(line)
