"""Memory in place of a disk that has no room: a folder that goes with the process that made it.

Whoever is killed leaves its folder; the next process to begin here drops it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEMORY = Path("/dev/shm")  # a file system in memory, on every Linux
PREFIX = "ftd-spare-"


class SpareRoom:
    """A folder of this process alone, in memory, until it is closed or the process ends."""

    def __init__(self) -> None:
        """Raises OSError when there is no such place, or nothing can be written there."""
        self._lock: int | None = None
        while self._lock is None:  # somebody may have taken it for abandoned meanwhile
            self._folder = tempfile.TemporaryDirectory(dir=MEMORY, prefix=PREFIX)
            self._lock = _lock(self.folder)

    @property
    def folder(self) -> Path:
        """Where to write."""
        return Path(self._folder.name)

    def close(self) -> None:
        """Give the memory back."""
        self._folder.cleanup()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def drop_abandoned() -> None:
    """Give back the memory of this user's processes that were killed."""
    for folder in _folders():
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _folders() -> Iterator[Path]:
    for folder in MEMORY.glob(f"{PREFIX}*"):
        try:
            is_ours = folder.lstat().st_uid == os.getuid()
        except FileNotFoundError:  # its process gives it back
            continue
        if is_ours:
            yield folder


def _lock(folder: Path) -> int | None:
    """Hold `folder` as long as this process lives; None when another holds it, or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not folder.exists():
        os.close(descriptor)
        return None
    return descriptor
