"""Fingerprints of what a run reads from outside its spec: folders, files, installed packages.

A fingerprint enters the run's key when it is planned and is taken again by every attempt: a
dataset that changed in between is refused instead of silently giving other numbers.  One that is
not there at all may only not be mounted yet, which is an error of its own.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ftd.errors import DataError, DataNotThere
from ftd.files import sha256_of
from ftd.job import Input

# What a server, a connection or a device that went away is reported as, whatever is read.
UNREACHABLE = frozenset(
    {
        errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ENOLINK,
        errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN,
        errno.EREMOTEIO, errno.EKEYEXPIRED,
    }
)  # fmt: skip
NOT_THERE = UNREACHABLE | {errno.ENOENT, errno.ENOTDIR, errno.EIO}


def fingerprint(source: Input) -> str:
    """A short text that changes when the input does.

    Folder: every file's relative path, size and mtime (ns), sorted.  File: its bytes.  Package:
    name and version.  Raises DataNotThere for a folder or file that is not there, also when that
    shows only while it is read; DataError for whatever else cannot be read.
    """
    if source.kind == "package":
        return _package(source.where)
    assert source.kind != "run", "a run is known by its key, which the ledger has"
    path = Path(source.where)
    try:
        return "sha256:" + sha256_of(path) if source.kind == "file" else _listing(_files(path))
    except OSError as error:
        raise _unreadable(source, error) from error


def verify(name: str, source: Input, planned: str) -> None:
    """Compare the input `name` with its `planned` fingerprint.

    Raises DataError when it changed since, DataNotThere when it is not there.
    """
    if source.kind == "run":  # verified where its files are looked up
        return
    if fingerprint(source) != planned:
        require_there(source, planned)
        raise DataError(
            f"{name} ({source.where}) changed since the run was planned",
            fix="Restore it, or enqueue the spec again to run on what is there now",
        )


def require_there(source: Input, planned: str) -> None:
    """Raise DataNotThere when a folder or file is not there; what is in it does not matter.

    A folder that had files when it was planned and has no entry at all is an empty mount point.
    """
    if source.kind in ("package", "run"):
        return
    try:
        os.stat(source.where)
        if source.kind == "folder" and planned != _listing(()):
            with os.scandir(source.where) as entries:
                if next(entries, None) is None:
                    raise DataNotThere(
                        f"folder {source.where} is empty, it had files when the run was planned",
                        source=source.where,
                        fix="Check that it is mounted",
                    )
    except OSError as error:
        if error.errno in NOT_THERE:
            raise _unreadable(source, error) from error


def _unreadable(source: Input, error: OSError) -> DataError:
    inner = error.filename is not None and os.fspath(error.filename) != source.where
    reason = f"{error.strerror}: {error.filename}" if inner else error.strerror
    what = f"cannot read {source.kind} {source.where} ({reason})"
    fix = "Check the path, that it is mounted, and its permissions"
    if error.errno in NOT_THERE:
        return DataNotThere(what, source=source.where, fix=fix)
    return DataError(what, fix=fix)


def _package(name: str) -> str:
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"package {name} is not installed", fix=f"pip install {name}") from None


def _listing(files: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for path, status in sorted(files):
        digest.update(f"{path}\0{status}\n".encode("utf-8", "surrogateescape"))
    return "listing:" + digest.hexdigest()


def _files(root: Path) -> Iterator[tuple[str, str]]:
    """Relative path, size and mtime of every file below; links are followed."""
    pending = [(root, "", frozenset({_inode(root.stat())}))]
    while pending:
        folder, prefix, around = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name, status = prefix + entry.name, entry.stat()
                if entry.is_dir():
                    inner = folder / entry.name
                    if _inode(status) in around:
                        raise DataError(
                            f"{inner} is a link to a folder that it is in", fix="Remove the link"
                        )
                    pending.append((inner, name + "/", around | {_inode(status)}))
                elif entry.is_file():
                    yield name, f"{status.st_size} {status.st_mtime_ns}"


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
