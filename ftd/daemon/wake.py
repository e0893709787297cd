"""Waking the daemon: a fifo in the home.  A lost wake-up costs a moment, never a run."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def wake(fifo: Path) -> None:
    """Tell the daemon that there is something new; silent when none is listening."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.write(descriptor, b"\n")
    except OSError:
        pass  # full: it is awake already
    finally:
        os.close(descriptor)


def listen(fifo: Path) -> int:
    """Make the fifo and open it; the descriptor is readable when somebody called :func:`wake`."""
    if fifo.exists() and not stat.S_ISFIFO(fifo.stat().st_mode):
        fifo.unlink()
    if not fifo.exists():
        os.mkfifo(fifo, 0o600)
    # Read-write: a fifo without a writer would otherwise report end of file for ever.
    return os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def drain(descriptor: int) -> None:
    """Forget the wake-ups received so far."""
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass
