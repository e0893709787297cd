"""What a dead worker leaves behind: processes of its session, and whoever still holds its lock.

A job's helper processes (data loaders, say) can outlive a worker that was killed, and keep its
device and memory.  They are ended with it.  A process that made a session of its own is left alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ftd.process import Identity, boot_id, identity_of, pids, send_signal
from ftd.protocol import MARK

_LOOKS = 400
_NEXT_LOOK_S = 0.005


def end_remains(worker: Identity, directory: Path) -> int:
    """SIGKILL what the dead `worker` of the attempt in `directory` left; how many there were.

    Belonging to its session is not enough: once all of it is gone, the number can be a stranger's.
    The mark in the environment tells, or where it is not (a forked worker's environment cannot be
    seen), the folder that it stands in.
    """
    if worker.boot_id != boot_id():
        return 0
    return sum(send_signal(found, signal.SIGKILL) for found in _session(worker.pid, directory))


def holders(path: Path) -> list[int]:
    """The processes that have `path` open, as far as we may see (ours and our user's)."""
    wanted = os.stat(path)
    return [pid for pid in pids() if _has_open(pid, wanted)]


def _session(leader: int, directory: Path) -> Iterator[Identity]:
    for pid in pids():
        with suppress(OSError):  # gone by now, or another user's
            if pid != leader and os.getsid(pid) == leader:
                identity = identity_of(pid)
                if identity and _belongs(pid, directory):
                    yield identity


def _belongs(pid: int, directory: Path) -> bool:
    proc = Path(f"/proc/{pid}")
    mark = f"{MARK}={directory}".encode()
    return (proc / "cwd").readlink() == directory.resolve() or (
        mark in _environment(proc).split(b"\0")
    )


def _environment(proc: Path) -> bytes:
    """The variables that the process was started with.

    In the midst of exec it shows none, which on a busy machine lasts until it gets its turn.
    """
    for _ in range(_LOOKS):
        if found := (proc / "environ").read_bytes():
            return found
        time.sleep(_NEXT_LOOK_S)
    return b""


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{descriptor}"), wanted):
                    return True
    return False
