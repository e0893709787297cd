"""Fingerprints of what a run reads from outside its spec: folders, files, installed packages.

A fingerprint enters the run's key when it is planned and is taken again by every attempt: a
dataset that changed in between is refused instead of silently giving other numbers.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

from ftd.errors import DataError
from ftd.files import sha256_of
from ftd.job import Input


def fingerprint(source: Input) -> str:
    """A short text that changes when the input does.

    Folder: every file's relative path, size and mtime (ns), sorted.  File: its bytes.  Package:
    name and version.  Raises DataError when it is missing.
    """
    if source.kind == "package":
        return _package(source.where)
    path = Path(source.where)
    try:
        if source.kind == "file":
            return "sha256:" + sha256_of(path)
        return _folder(path)
    except OSError as error:
        raise DataError(
            f"cannot read {source.kind} {path} ({error.strerror})",
            fix="Check the path, that it is mounted, and its permissions",
        ) from error


def _package(name: str) -> str:
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"package {name} is not installed", fix=f"pip install {name}") from None


def _folder(root: Path) -> str:
    digest = hashlib.sha256()
    for path, status in sorted(_files(root)):
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
