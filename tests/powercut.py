"""Power cuts: every state a disk may be in when the machine stops, enumerated and put on a disk.

A SIGKILL does not show them, because the page cache survives it.  A :class:`Recorder` watches a
folder while real code writes there; after every operation it knows what is durable and what is
not.  The model is POSIX at its worst, weaker than what any journalling filesystem promises:

* bytes are durable when their file has been fsynced; of later ones any beginning may be there, or
  zeros in their place;
* a name (made, renamed, removed) is durable when its folder has been fsynced; of later changes each
  may be there or not, whatever became of the others.  A rename is atomic.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

WATCHED = ("open", "write", "rename", "replace", "mkdir", "rmdir", "unlink")
ROOT = 0
MAX_SUBSETS = 32  # of pending changes to names, at one moment; more are sampled

Files = Mapping[int, bytes]
Folders = Mapping[int, Mapping[str, int]]
Edit = tuple[int, str, int | None]  # in this folder, this name leads there (None: nowhere)
Change = tuple[Edit, ...]  # edits that happen together
Tree = dict[str, bytes | None]  # relative path -> content; None: a folder


@dataclass(frozen=True)
class Moment:
    """What is durable and what is not, between two operations.

    ``now`` and ``durable`` map every file's number to its bytes; ``names`` are the durable names in
    every folder, and ``pending`` the changes to names since then; ``marks`` is what had been
    reported by then.
    """

    now: Files
    durable: Files
    names: Folders
    pending: tuple[Change, ...]
    marks: Mapping[str, Any]


@dataclass
class Recorder:
    """Watches what this process does below `root`; what is there at the beginning is durable.

    `unsynced(path)` names files and folders whose fsync is taken out, to see that it matters.
    """

    root: Path
    unsynced: Callable[[Path], bool] = lambda path: False
    moments: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turn = threading.RLock()  # several threads may wait for the disk at once
        self._numbers: dict[int, int] = {}  # inode -> number; an inode may be used again
        self._used = 0
        self._marks: dict[str, Any] = {}
        self._pending: list[Change] = []
        self._files, self._folders = self._seen()
        self._durable = dict(self._files)
        self._names = dict(self._folders)

    def __enter__(self) -> Recorder:
        self._patches = ExitStack()
        for name in WATCHED:
            self._patches.enter_context(patch.object(os, name, self._watched(getattr(os, name))))
        self._patches.enter_context(patch.object(os, "fsync", self._fsync))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()
        self._look()

    def mark(self, **reported: Any) -> None:
        """From now on, this has been reported to somebody."""
        self._marks |= reported
        self._look()

    def _watched(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(operation)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self._turn:
                try:
                    return operation(*args, **kwargs)
                finally:
                    self._look()

        return watched

    def _fsync(self, descriptor: int) -> None:
        """In place of ``os.fsync``: the disk is this model."""
        with self._turn:
            self._synced(descriptor)

    def _synced(self, descriptor: int) -> None:
        self._look()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        number = self._numbers.get(os.fstat(descriptor).st_ino)
        if number is None or self.unsynced(path):
            return
        if number in self._files:
            self._durable[number] = self._files[number]
        else:
            self._names[number] = self._folders[number]
            kept = (tuple(e for e in change if e[0] != number) for change in self._pending)
            self._pending = [change for change in kept if change]
        self._keep()

    def _look(self) -> None:
        """Take in what changed since the last look."""
        files, folders = self._seen()
        self._pending += _changes(self._folders, folders)
        if (files, folders) != (self._files, self._folders) or not self.moments:
            self._files, self._folders = files, folders
            self._durable = dict.fromkeys(files, b"") | self._durable
            self._keep()
        elif self.moments[-1].marks != self._marks:
            self._keep()

    def _keep(self) -> None:
        self.moments.append(
            Moment(
                self._files,
                dict(self._durable),
                dict(self._names),
                tuple(self._pending),
                dict(self._marks),
            )
        )

    def _seen(self) -> tuple[dict[int, bytes], dict[int, dict[str, int]]]:
        files: dict[int, bytes] = {}
        folders: dict[int, dict[str, int]] = {}
        known, self._numbers = self._numbers, {}

        def number_of(inode: int) -> int:
            if inode not in self._numbers:
                self._numbers[inode] = known.get(inode, self._used)
                self._used += inode not in known
            return self._numbers[inode]

        def walk(folder: Path) -> int:
            number = number_of(folder.stat().st_ino)
            names: dict[str, int] = {}
            folders[number] = names
            for path in sorted(folder.iterdir()):
                if path.is_dir():
                    names[path.name] = walk(path)
                elif path.is_file():  # a fifo holds nothing to lose
                    names[path.name] = inner = number_of(path.stat().st_ino)
                    files[inner] = path.read_bytes()
            return number

        assert walk(self.root) == ROOT
        return files, folders


def _changes(before: Folders, after: Folders) -> list[Change]:
    """What happened to names; a thing that left one name for another was renamed."""
    gone: dict[int, Edit] = {}
    come: list[tuple[int, Edit]] = []
    for folder in {*before, *after}:
        old, new = before.get(folder, {}), after.get(folder, {})
        for name in {*old, *new}:
            if name not in new:
                gone[old[name]] = (folder, name, None)
            elif old.get(name) != new[name]:
                come.append((new[name], (folder, name, new[name])))
    renamed = [(gone.pop(n), edit) if n in gone else (edit,) for n, edit in sorted(come)]
    return [*renamed, *((edit,) for edit in gone.values())]


def states(moment: Moment, seed: int) -> Iterator[Tree]:
    """The trees that may be found after a power cut at `moment`: all of them, or a sample."""
    draw = random.Random(seed)
    torn = {
        number: _torn(moment.durable.get(number, b""), now)
        for number, now in moment.now.items()
        if moment.durable.get(number) != now
    }
    for subset in _subsets(moment.pending, draw):
        folders = _applied(moment.names, subset)
        yield _tree(folders, moment.durable)
        yield _tree(folders, {**moment.durable, **moment.now})
        for number, variants in torn.items():
            for content in variants:
                yield _tree(folders, {**moment.durable, **moment.now, number: content})


def _torn(durable: bytes, now: bytes) -> list[bytes]:
    """What may be left of bytes that were never fsynced."""
    kept = durable if now.startswith(durable) else b""
    tail = len(now) - len(kept)
    cut = [now[: len(kept) + tail // 2], now[:-1]]
    zeros = [kept + bytes(tail), now[: len(now) - tail // 2] + bytes(tail // 2)]
    return [*cut, *zeros]


def _subsets(changes: Sequence[Change], draw: random.Random) -> Iterator[Sequence[Change]]:
    count = len(changes)
    if 2**count <= MAX_SUBSETS:
        chosen = set(range(2**count))
    else:
        chosen = {2**n - 1 for n in range(count + 1)}  # the first n
        chosen |= {2**count - 1 - 2**n for n in range(count)} | {2**n for n in range(count)}
        chosen |= {draw.getrandbits(count) for _ in range(MAX_SUBSETS)}
    for bits in sorted(chosen):
        yield [change for n, change in enumerate(changes) if bits >> n & 1]


def _applied(names: Folders, changes: Sequence[Change]) -> dict[int, dict[str, int]]:
    folders = {number: dict(inside) for number, inside in names.items()}
    for folder, name, number in (edit for change in changes for edit in change):
        inside = folders.setdefault(folder, {})
        inside.pop(name, None)
        if number is not None:
            inside[name] = number
    return folders


def _tree(folders: Folders, files: Files) -> Tree:
    tree: Tree = {}

    def walk(number: int, prefix: str) -> None:
        for name, inner in folders.get(number, {}).items():
            tree[prefix + name] = files.get(inner)
            if inner not in files:
                walk(inner, f"{prefix}{name}/")

    walk(ROOT, "")
    return tree


def durable_names(moment: Moment) -> set[str]:
    """Paths that are certainly there after a power cut at `moment`."""
    return set(_tree(moment.names, moment.durable))


def power_cuts(recorder: Recorder, seed: int = 0) -> Iterator[tuple[Tree, Mapping[str, Any]]]:
    """Every distinct tree that a power cut may leave, with what had been reported by then."""
    known = set()
    for moment in recorder.moments:
        for tree in states(moment, seed):
            key = (frozenset(tree.items()), repr(moment.marks))
            if key not in known:
                known.add(key)
                yield tree, moment.marks


def put(tree: Tree, folder: Path) -> Path:
    """Write a tree below a new `folder`."""
    folder.mkdir()
    for name, content in sorted(tree.items()):
        path = folder / name
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
    return folder
