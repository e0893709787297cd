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

from ftd.files import MANIFEST, locked, read_json, seal_folder, set_aside

Writers = Mapping[str, Callable[[Path], None]]


class Store:
    """Entries below one folder, safe for any number of processes on one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

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
        if not self._complete(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_suffix(".lock")):
                if not self._complete(folder):
                    if folder.exists():
                        set_aside(folder, "damaged")  # kept for inspection
                    seal_folder(folder, make(), {"kind": kind, "key": dict(key)})
        os.utime(folder / MANIFEST)  # last use, for whoever frees space later
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
