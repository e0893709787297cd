"""The store: results that are functions of their inputs, computed once and shared by all runs.

An entry is a sealed folder named by its kind and the hash of everything it depends on.  Whoever
needs a missing entry first computes it under a lock; the others wait and then read it.  The store
is a cache: where its disk has no room, a process computes the same bytes for itself, in memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftd.clock import monotonic
from ftd.diskspace import is_out_of_room
from ftd.files import MANIFEST, locked, read_json, seal_folder, set_aside
from ftd.spare import MEMORY, SpareRoom

Writers = Mapping[str, Callable[[Path], None]]
Used = Callable[[float, float], None]

COST = "cost.json"  # of an entry: {"seconds": how long computing it took}
# What a process may hold in memory for want of room; the entry that passes it is the last one.
SPARE_BYTES = 2 << 30


class Store:
    """Entries below one folder, safe for any number of processes on one machine."""

    def __init__(
        self, root: Path, used: Used | None = None, *, spare_bytes: int = SPARE_BYTES
    ) -> None:
        """`used(actual_s, alone_s)` is told of each use: how long it took to have the entry, and
        how long it would have taken without what others computed: the first use in this object
        would have had to compute it.  Without room, entries of `spare_bytes` are
        made in memory, for this object alone.
        """
        self.root = root
        self._used = used
        self._known: set[Path] = set()  # entries that were used before
        self._spare: SpareRoom | None = None
        self._spare_bytes = spare_bytes

    @property
    def scratch(self) -> Path:
        """Where to put what is needed only while an entry is computed, if there is to be room."""
        return self.root if self._spare is None else self._spare.folder

    def has(self, kind: str, key: Mapping[str, Any]) -> bool:
        """Whether the entry of this `kind` and `key` (JSON values) is there."""
        return self._held(kind, key) is not None

    def entry(self, kind: str, key: Mapping[str, Any], make: Callable[[], Writers]) -> Path:
        """The sealed folder of an entry; `make` names its files' writers when it must be computed.

        Every file is there with its recorded size.  Raises whatever computing it raises; nothing
        half-made is ever visible.  `make` is called again when there was no room for what it made,
        and raises OSError when there is no memory for that either.
        """
        started = monotonic()
        folder = self._held(kind, key) or self._made(kind, key, make)
        os.utime(folder / MANIFEST)  # last use, for whoever frees space later
        if self._used is not None:
            actual_s = monotonic() - started
            recorded = {} if folder in self._known else read_json(folder / COST) or {}
            self._known.add(folder)
            self._used(actual_s, recorded.get("seconds", actual_s))
        return folder

    def close(self) -> None:
        """Give back the memory of entries that were made there."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _held(self, kind: str, key: Mapping[str, Any]) -> Path | None:
        """The folder of an entry that is there, on the disk or in memory."""
        folder = _folder(self.root, kind, key)
        if _is_complete(folder):
            return folder
        if self._spare is not None:
            folder = _folder(self._spare.folder, kind, key)
            if _is_complete(folder):
                return folder
        return None

    def _made(self, kind: str, key: Mapping[str, Any], make: Callable[[], Writers]) -> Path:
        if self._spare is None:
            try:
                return _sealed(self.root, kind, key, make)
            except OSError as error:
                if not is_out_of_room(error) or not MEMORY.is_dir():
                    raise
                self._spare = SpareRoom()
        if self._spare_bytes <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.root))
        folder = _sealed(self._spare.folder, kind, key, make)
        self._spare_bytes -= sum(path.stat().st_size for path in folder.iterdir())
        return folder


def _folder(root: Path, kind: str, key: Mapping[str, Any]) -> Path:
    """Where the entry of this `kind` and `key` is, or would be."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return root / kind / hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_complete(folder: Path) -> bool:
    """Whether `folder` holds every file of an entry."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return False
    try:
        return all(
            os.stat(os.path.join(folder, name)).st_size == recorded["bytes"]
            for name, recorded in manifest["files"].items()
        )
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _sealed(root: Path, kind: str, key: Mapping[str, Any], make: Callable[[], Writers]) -> Path:
    """The folder of an entry that somebody, or else we, made below `root`."""
    folder = _folder(root, kind, key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not _is_complete(folder):
            if folder.exists():
                set_aside(folder, "damaged")  # kept for inspection
            seal_folder(folder, _timed(make), {"kind": kind, "key": dict(key)})
    return folder


def _timed(make: Callable[[], Writers]) -> Writers:
    """The writers of `make`, and one more that notes how long all that took."""
    started = monotonic()

    def write(path: Path) -> None:
        path.write_text(json.dumps({"seconds": monotonic() - started}))

    return {**make(), COST: write}
