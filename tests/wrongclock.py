"""A wall clock that is wrong: the daemon and its workers see another time than this machine.

    clock = WrongClock(tmp_path)
    home.launcher = clock.launcher
    clock.set_by(3600)      # also while they run
    home.start_daemon()

Durations (the monotonic clock) and files' times stay those of the machine.  As a script it becomes
a Python command that sees the time so: ``python wrongclock.py FILE PYTHON -P -m MODULE ...``
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path


class WrongClock:
    """A clock that is right until it is set."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.launcher = (sys.executable, "-P", os.path.abspath(__file__), str(self._file))
        self.set_by(0)
        # Workers are started by the path of the daemon's own Python: it leads here as well.
        python = _python_of(self._file)
        command = " ".join(f"'{word}'" for word in (*self.launcher, sys.executable))
        python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        python.chmod(0o755)

    def set_by(self, seconds: float) -> None:
        """Let the clock be ahead by so much (behind, if negative) from now on."""
        aside = self._file.with_suffix(".new")
        aside.write_text(repr(seconds))
        aside.rename(self._file)


def _python_of(file: Path) -> Path:
    return file.with_suffix(".python")


def main(file: Path, command: Sequence[str]) -> None:
    """Be the Python command `command` with the clock of `file`."""
    right = time.time
    time.time = lambda: right() + float(file.read_text())
    sys.executable = str(_python_of(file))
    module, *arguments = command[command.index("-m") + 1 :]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
