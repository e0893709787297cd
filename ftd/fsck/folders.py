"""Checks of the home's folders: artifacts, checkpoints, store entries, leftovers, unknown runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ftd.clock import now
from ftd.errors import FtdError
from ftd.files import sealed_folder, set_aside, sha256_of, try_lock
from ftd.fsck.problem import Problem
from ftd.layout import Home
from ftd.ledger import invariants
from ftd.ledger.db import Ledger
from ftd.ledger.invariants import KeptFile
from ftd.protocol import ARTIFACTS, CHECKPOINTS
from ftd.states import RunState

LEFT_FOR_S = 3600.0  # what nobody has touched for so long, nobody is writing
_ASIDE = re.compile(r"\.(?!damaged-|unknown-).+\.[a-z0-9_]{8}")  # as ftd.files writes aside


def artifacts(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Files that runs keep, against the sizes and digests in the ledger."""
    for kept in invariants.kept_files(ledger):
        path = home.attempt(kept.run_id, kept.attempt) / ARTIFACTS / kept.name
        wrong = _differs(path, kept)
        if wrong:
            yield Problem(
                _shown(home, path),
                wrong,
                "Its run's numbers stand; enqueue the spec with --fresh to make the file again",
            )


def _differs(path: Path, kept: KeptFile) -> str | None:
    try:
        if path.stat().st_size != kept.num_bytes:
            return f"has {path.stat().st_size} bytes, {kept.num_bytes} were recorded"
        if sha256_of(path) != kept.sha256:
            return "has other bytes than were recorded"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def checkpoints(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Damaged checkpoints, which resuming passes over, and those left of runs that are done."""
    states = invariants.run_states(ledger)
    for folder in _each(home.root, f"runs/r*/attempts/*/{CHECKPOINTS}/*"):
        run_id = _number(folder.parents[3].name)
        if not folder.name.isdecimal() or run_id is None:
            continue
        if states.get(run_id) == RunState.DONE:
            if _left_behind(folder):
                yield Problem(
                    _shown(home, folder),
                    "is a checkpoint of a run that is done: nobody will need it",
                    "is removed",
                    partial(shutil.rmtree, folder),
                )
        elif sealed_folder(folder) is None and not _in_use(ledger, run_id):
            yield Problem(
                _shown(home, folder),
                "is a damaged checkpoint: an older one is resumed from, or step 0",
                "is set aside",
                partial(set_aside, folder, "damaged"),
            )


def _in_use(ledger: Ledger, run_id: int) -> bool:
    """Whether somebody may just be dropping a run's checkpoints: its worker, or the daemon."""
    now_in = invariants.run_states(ledger).get(run_id)
    return now_in in (RunState.RUNNING, RunState.DONE)


def store(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Store entries against their manifests."""
    for folder in _each(home.store, "*/*"):
        if folder.name.startswith(".") or not folder.is_dir() or sealed_folder(folder) is not None:
            continue
        yield Problem(
            _shown(home, folder),
            "is a damaged store entry: runs would read wrong bytes or fail",
            "is set aside; whoever needs it computes it again",
            partial(set_aside, folder, "damaged"),
        )


def leftovers(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """What somebody was writing when they were killed."""
    places = (
        ".*", "runs/r*/.*", "jobs/.*", "runs/r*/attempts/.*", "runs/r*/attempts/*/.*",
        f"runs/r*/attempts/*/{CHECKPOINTS}/.*", "store/*/.*",
    )  # fmt: skip
    found = [path for place in places for path in _each(home.root, place)]
    written_aside = [path for path in found if _ASIDE.fullmatch(path.name)]
    unfinished = [*home.root.glob(".ledger.new*"), *home.backups.glob("*.part*")]
    for path in sorted({*written_aside, *unfinished}):
        if _left_behind(path):
            yield Problem(
                _shown(home, path),
                "was never finished: whoever wrote it was killed",
                "is removed",
                partial(_remove, path),
            )


def unknown_runs(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Folders of runs that the ledger does not have: it was restored from an older backup."""
    folders = _each(home.root, "runs/r*")  # before the ledger is asked: a run may just begin
    known = invariants.run_states(ledger)
    for folder in folders:
        if _number(folder.name) not in known:
            yield Problem(
                _shown(home, folder),
                "belongs to no run in the ledger, and another run will get its number",
                "is set aside; look what is in it, then remove it",
                partial(_set_aside_run, folder),
            )


def _set_aside_run(folder: Path) -> None:
    lock = try_lock(folder / "lock")
    if lock is None:
        raise FtdError(f"a worker still holds {folder / 'lock'}: wait until it has ended")
    try:
        set_aside(folder, "unknown")
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _left_behind(path: Path) -> bool:
    return now() - _touched_at(path) > LEFT_FOR_S


def _touched_at(path: Path) -> float:
    """When anything in it was last changed (UTC epoch seconds); now, if it goes at this moment."""
    try:
        moments = [path.lstat().st_mtime]
        if path.is_dir() and not path.is_symlink():
            moments += [_touched_at(inner) for inner in path.iterdir()]
    except FileNotFoundError:
        return now()
    return max(moments)


def _each(root: Path, pattern: str) -> list[Path]:
    while True:
        try:
            return sorted(root.glob(pattern))
        except FileNotFoundError:  # a folder went while it was read: look again
            continue


def _number(name: str) -> int | None:
    digits = name.removeprefix("r")
    return int(digits) if digits.isdecimal() else None


def _shown(home: Home, path: Path) -> str:
    return str(path.relative_to(home.root))
