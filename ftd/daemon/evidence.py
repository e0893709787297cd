"""What became of an attempt's worker, from evidence alone.  Nothing expires by the clock.

Order of evidence: a sealed result, the process, the run's lock.  Only when all are silent is the
attempt over without a result, and then the attempt is revoked under the run's lock, so that a late
worker of it can never start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ftd.files import make_folder, read_json, seal_json, try_lock
from ftd.process import Identity, alive
from ftd.protocol import EVENTS, RESULT, REVOKED, WORKER, Result


@dataclass(frozen=True)
class Alive:
    """The worker's process runs; `sealed` says that its result is there already."""

    identity: Identity
    sealed: bool


@dataclass(frozen=True)
class Over:
    """The worker is gone for good, with its `result` or without one."""

    result: Result | None
    damaged: bool = False


@dataclass(frozen=True)
class Blocked:
    """The worker is gone, but something it started still holds the run's lock."""


def examine(directory: Path, run_lock: Path, recorded: Identity | None) -> Alive | Over | Blocked:
    """Look at an attempt's `directory`; `recorded` is who the ledger says its worker is."""
    said = read_json(directory / WORKER)
    for identity in (recorded, Identity.from_json(said)):
        if identity is not None and alive(identity):
            return Alive(identity, sealed=(directory / RESULT).exists())
    lock = _lock(run_lock)
    if lock is None:
        return Blocked()
    try:
        if not (directory / RESULT).exists():
            _revoke(directory)
            return Over(None)
        return _sealed_result(directory)
    finally:
        os.close(lock)


def finished(directory: Path, run_lock: Path) -> Over | None:
    """The attempt in `directory`, if its worker, which lives, is done with it; None: it is not.

    Its result is sealed and the run's lock is free: the worker writes nothing for it any more.
    """
    lock = try_lock(run_lock)
    if lock is None:
        return None
    try:
        return _sealed_result(directory) if (directory / RESULT).exists() else None
    finally:
        os.close(lock)


def _lock(path: Path) -> int | None:
    make_folder(path.parent)
    return try_lock(path)


def _revoke(directory: Path) -> None:
    make_folder(directory)
    if not (directory / REVOKED).exists():
        seal_json(directory / REVOKED, {"why": "its worker was gone"})


def _sealed_result(directory: Path) -> Over:
    """The result, if it is whole and the events it speaks of are there."""
    try:
        result = Result.from_json(read_json(directory / RESULT) or {})
        written = (directory / EVENTS).stat().st_size
    except (TypeError, KeyError, ValueError, FileNotFoundError):
        return Over(None, damaged=True)
    return Over(result) if written >= result.events_offset else Over(None, damaged=True)
