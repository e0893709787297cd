"""Whether there is room to begin something: runs wait for space, they do not fail for it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

RESERVE_BYTES = 256 << 20
RESERVE_SHARE = 0.05  # of a filesystem so small that the reserve would be most of it
TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
# Libraries that do not pass the number on: safetensors only quotes it, numpy and torch say what
# they were doing.
WORDS_OF_TROUBLE = re.compile(
    "|".join(
        (
            rf"\(os error ({'|'.join(str(number) for number in sorted(TROUBLE))})\)",
            r"^\d+ requested and \d+ written$",
            r"inline_container\.cc:\d+\] \. (unexpected pos|.*file write failed)",
        )
    )
)


def shortage(folder: Path) -> str | None:
    """What is wrong with the room in `folder` when a run should not start now, else None."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    reserve = min(RESERVE_BYTES, int(RESERVE_SHARE * found.f_blocks * found.f_frsize))
    if free >= reserve:
        return None
    mib = [f"{size / (1 << 20):.3g}" for size in (free, reserve)]
    return f"only {mib[0]} MiB are free in {folder}; runs start again from {mib[1]} MiB"


def is_storage_trouble(error: BaseException) -> bool:
    """Whether an error means a disk that is full, failing or read-only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in TROUBLE
    return WORDS_OF_TROUBLE.search(str(error)) is not None


def is_out_of_room(error: OSError) -> bool:
    """Whether an error means a full disk, or an end of what a user may take of it.

    numpy does not say why it could write no more.
    """
    return error.errno in NO_ROOM or (error.errno is None and is_storage_trouble(error))
