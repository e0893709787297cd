"""Reading files that anybody may have put there: regular ones only, and no more than is sane."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from ftd.errors import InputError

# nothing that could be read later has this name now: absent, no regular file, far too long
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EFBIG, errno.ELOOP})


def full_path(text: str, base: Path) -> Path:
    """The absolute path that `text` means: ``~`` is a home, relative paths start at `base`.

    Raises InputError when nothing can have that name, or it may not be looked at.
    """
    try:
        path = Path(os.path.abspath(base / Path(text).expanduser()))
        path.exists()
    except OSError as error:
        raise InputError(f"cannot look at '{text}' ({error.strerror})") from error
    except (RuntimeError, ValueError) as error:
        raise InputError(f"'{text}' is no path ({error})") from error
    return path


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read bytes.  Raises OSError, also for what is no regular file.

    Opening a fifo would wait for a writer, and a device may never end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"not a file name: {error}", str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file.  Raises OSError, also when they are more than `limit_bytes`."""
    with open_regular(path) as stream:
        if os.fstat(stream.fileno()).st_size <= limit_bytes:
            data = stream.read(limit_bytes + 1)  # it may have grown, or say 0, as in /proc
            if len(data) <= limit_bytes:
                return data
    raise OSError(errno.EFBIG, f"longer than {limit_bytes:,} bytes", str(path))
