"""Who a process is, whether it still lives, and how to signal it without hitting a stranger.

A pid alone is re-used; (boot id, pid, start ticks) is not.
"""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MAX_PID = 1 << 22  # PID_MAX_LIMIT of 64-bit Linux


@dataclass(frozen=True)
class Identity:
    """One process for ever: `start_ticks` is field 22 of ``/proc/PID/stat``."""

    boot_id: str
    pid: int
    start_ticks: int

    def as_json(self) -> dict[str, Any]:
        """The identity as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Identity | None:
        """Read what :meth:`as_json` wrote; None for anything else."""
        if not isinstance(value, dict):
            return None
        boot_id, pid, ticks = (value.get(name) for name in ("boot_id", "pid", "start_ticks"))
        if isinstance(boot_id, str) and type(pid) is int and type(ticks) is int:
            return cls(boot_id, pid, ticks) if 0 < pid <= MAX_PID else None
        return None


def boot_id() -> str:
    """The kernel's identifier of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start ticks of a process, or None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rfind(")") + 2 :].split()  # the name may hold spaces and brackets
    return fields[0], int(fields[19])


def identity_of(pid: int) -> Identity | None:
    """The identity of a live process (a zombie counts as dead), or None."""
    found = _stat(pid)
    if found is None or found[0] in "ZX":
        return None
    return Identity(boot_id(), pid, found[1])


def pids() -> list[int]:
    """Every process that there is now."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def own_identity() -> Identity:
    """The identity of the calling process."""
    found = identity_of(os.getpid())
    assert found is not None, "a running process is in /proc"
    return found


def alive(identity: Identity) -> bool:
    """Whether exactly this process still runs."""
    return identity_of(identity.pid) == identity


def age_s(identity: Identity) -> float:
    """Seconds since a process started, whatever happened to the clock in between."""
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return uptime_s - identity.start_ticks / os.sysconf("SC_CLK_TCK")


def open_pidfd(identity: Identity) -> int | None:
    """A descriptor that becomes readable when exactly this process ends, or None if it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if not alive(identity):  # the pid may have changed hands before the descriptor was opened
        os.close(descriptor)
        return None
    return descriptor


def send_signal(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it no longer runs."""
    descriptor = open_pidfd(identity)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def kill_session(identity: Identity) -> bool:
    """SIGKILL the process group that `identity` leads; False when that process no longer runs.

    Only ever called for workers, which lead their own session: a group that somebody else leads is
    left alone.
    """
    if not alive(identity) or os.getpgid(identity.pid) != identity.pid:
        return False
    try:
        os.killpg(identity.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def signal_name(number: int) -> str:
    """``SIGKILL`` and the like; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
