"""The store: results that are functions of their inputs, computed once and shared by all runs.

An entry is a sealed folder named by its kind and the hash of everything it depends on.  Whoever
needs a missing entry first computes it under a lock; the others wait and then read it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftd.clock import monotonic
from ftd.files import MANIFEST, locked, read_json, seal_folder, set_aside

Writers = Mapping[str, Callable[[Path], None]]
Used = Callable[[float, float], None]

COST = "cost.json"  # of an entry: {"seconds": how long computing it took}


class Store:
    """Entries below one folder, safe for any number of processes on one machine."""

    def __init__(self, root: Path, used: Used | None = None) -> None:
        """`used(actual_s, alone_s)` is told of each use: how long it took to have the entry, and
        how long it would have taken to compute it."""
        self.root = root
        self._used = used

    def folder(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Where the entry of this `kind` and `key` (JSON values) is, or would be."""
        text = json.dumps(key, sort_keys=True, separators=(",", ":"))
        return self.root / kind / hashlib.sha256(text.encode()).hexdigest()[:32]

    def entry(self, kind: str, key: Mapping[str, Any], make: Callable[[], Writers]) -> Path:
        """The sealed folder of an entry; `make` names its files' writers when it must be computed.

        Every file is there with its recorded size.  Raises whatever computing it raises; nothing
        half-made is ever visible.
        """
        folder = self.folder(kind, key)
        started = monotonic()
        if not self._complete(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_suffix(".lock")):
                if not self._complete(folder):
                    if folder.exists():
                        set_aside(folder, "damaged")  # kept for inspection
                    seal_folder(folder, _timed(make), {"kind": kind, "key": dict(key)})
        os.utime(folder / MANIFEST)  # last use, for whoever frees space later
        if self._used is not None:
            actual_s = monotonic() - started
            recorded = read_json(folder / COST) or {}
            self._used(actual_s, recorded.get("seconds", actual_s))
        return folder

    @staticmethod
    def _complete(folder: Path) -> bool:
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            return False
        try:
            return all(
                (folder / name).stat().st_size == recorded["bytes"]
                for name, recorded in manifest["files"].items()
            )
        except (OSError, KeyError, TypeError, AttributeError):
            return False


def _timed(make: Callable[[], Writers]) -> Writers:
    """The writers of `make`, and one more that notes how long all that took."""
    started = monotonic()

    def write(path: Path) -> None:
        path.write_text(json.dumps({"seconds": monotonic() - started}))

    return {**make(), COST: write}
