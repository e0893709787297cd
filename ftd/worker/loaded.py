"""The files that this process has loaded, and whether they are still the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

State = tuple[int, int] | None  # what tells another version of a file; None: there is none


class Loaded:
    """The files of all modules that are loaded, as they were when they were first looked at."""

    def __init__(self) -> None:
        self._states = _states(_files())

    def changed(self) -> bool:
        """Whether one of them is another now; from now on, what was loaded since counts too."""
        now = _states({*self._states, *_files()})
        self._states = now | self._states
        return self._states != now


def _files() -> set[str]:
    spaces = [getattr(module, "__dict__", {}) for module in list(sys.modules.values())]
    return {file for space in spaces if isinstance(file := space.get("__file__"), str)}


def _states(files: Iterable[str]) -> dict[str, State]:
    found: dict[str, State] = dict.fromkeys(files)
    for file in found:
        with suppress(OSError):
            state = os.stat(file)
            found[file] = state.st_mtime_ns, state.st_size
    return found
