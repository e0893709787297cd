"""Small real filesystems, to be filled up."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


@contextmanager
def small_disk_at(folder: Path) -> Iterator[Path]:
    """A filesystem of 24 MiB for the length of a block."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small filesystem needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all the room there is but for `leave` bytes."""
    found = os.statvfs(folder)
    room = found.f_bavail * found.f_frsize
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while not leave or stream.tell() < room - leave:
                stream.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler
