"""A view that renews itself in a terminal until somebody leaves it."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live

from ftd.views.table import Table, rich_tables

REFRESH_S = 0.7


def watch(tables: Callable[[int], Sequence[Table]]) -> None:
    """Show `tables(rows)` again and again until q or Ctrl-C; `rows` is what may fit.

    Everything stays on a screen of its own, so that the terminal looks as before afterwards.
    """
    console = Console()
    with (
        suppress(KeyboardInterrupt),
        _keys() as left,
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
    ):
        while True:
            rows = max(console.size.height // 3, 3)
            live.update(rich_tables(tables(rows)), refresh=True)
            if left(REFRESH_S):
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Within it, keys arrive at once; yields a function that waits and says whether to leave."""
    if not sys.stdin.isatty():
        yield _slept
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda wait_s: _pressed(descriptor, wait_s) in (b"q", b"Q", b"")
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _slept(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False


def _pressed(descriptor: int, wait_s: float) -> bytes | None:
    """The key pressed within `wait_s`; empty when the terminal went away; None for no key."""
    ready, _, _ = select.select([descriptor], [], [], wait_s)
    return os.read(descriptor, 1) if ready else None
