"""The folder in which a job's own program keeps its state, handed from attempt to attempt."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from ftd.files import fsync_file, fsync_folder
from ftd.protocol import WORKSPACE


def workspace(attempts: Path, number: int) -> Path:
    """The workspace of attempt `number`, made if need be: empty, or as the newest earlier one.

    What an earlier attempt left is copied and never written to; if a copy exists, it is complete.
    """
    folder = attempts / str(number) / WORKSPACE
    if folder.exists():
        return folder
    earlier = _earlier(attempts, number)
    if earlier is None:
        folder.mkdir()
    else:
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{WORKSPACE}."))
        shutil.copytree(earlier, aside, symlinks=True, ignore=_special, dirs_exist_ok=True)
        _fsync_all(aside)
        os.rename(aside, folder)
    fsync_folder(folder.parent)
    return folder


def _earlier(attempts: Path, number: int) -> Path | None:
    for before in range(number - 1, 0, -1):
        folder = attempts / str(before) / WORKSPACE
        if folder.is_dir():
            return folder
    return None


def _special(folder: str, names: list[str]) -> list[str]:
    """Pipes, sockets and the like: copying one could wait for ever."""
    kinds = ((name, os.lstat(os.path.join(folder, name)).st_mode) for name in names)
    plain = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return [name for name, mode in kinds if not any(is_kind(mode) for is_kind in plain)]


def _fsync_all(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                fsync_file(path)
        fsync_folder(Path(folder))
