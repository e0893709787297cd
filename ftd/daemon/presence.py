"""Whether a daemon serves a home, and which process it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ftd.clock import now
from ftd.errors import DaemonRunning, LedgerError
from ftd.files import read_json, seal_json, try_lock
from ftd.layout import Home
from ftd.process import Identity, alive, own_identity


def daemon_identity(home: Home) -> dict[str, Any] | None:
    """``{boot_id, pid, start_ticks, since}`` of the daemon that serves `home` now, or None."""
    recorded = read_json(home.daemon_identity)
    identity = Identity.from_json(recorded)
    return recorded if identity is not None and alive(identity) else None


@contextmanager
def without_daemon(home: Home) -> Iterator[None]:
    """A block in which no daemon serves `home` nor can begin to.

    Raises DaemonRunning, or LedgerError when there is no such home.
    """
    if not home.root.is_dir():
        raise LedgerError(f"there is no home at {home.root}. Run 'ftd init', or check --home")
    lock = _lock(home)
    try:
        yield
    finally:
        os.close(lock)


def claim(home: Home) -> int:
    """Become the daemon of `home`; the lock's descriptor, kept open.  Raises DaemonRunning."""
    lock = _lock(home)
    seal_json(home.daemon_identity, {**own_identity().as_json(), "since": now()})
    return lock


def _lock(home: Home) -> int:
    lock = try_lock(home.daemon_lock)
    if lock is None:
        other = daemon_identity(home)
        who = f"pid {other['pid']}" if other else "another process"
        raise DaemonRunning(f"a daemon already serves {home.root} ({who})")
    return lock
