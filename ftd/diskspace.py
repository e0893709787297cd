"""Whether there is room to begin something: runs wait for space, they do not fail for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

RESERVE_BYTES = 256 << 20
RESERVE_SHARE = 0.05  # of a filesystem so small that the reserve would be most of it
TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


def shortage(folder: Path) -> str | None:
    """What is wrong with the room in `folder` when a run should not start now, else None."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    reserve = min(RESERVE_BYTES, int(RESERVE_SHARE * found.f_blocks * found.f_frsize))
    if free >= reserve:
        return None
    return f"only {free >> 20} MiB are free in {folder}; runs start again from {reserve >> 20} MiB"


def is_storage_trouble(error: BaseException) -> bool:
    """Whether an error means a disk that is full, failing or read-only."""
    if isinstance(error, OSError):
        return error.errno in TROUBLE
    # Libraries written in Rust (safetensors) have errors of their own that only quote the number.
    return any(f"(os error {number})" in str(error) for number in TROUBLE)
