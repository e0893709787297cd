"""Where in a spec a cell's parameter was written: in a level, or in the spec's body."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftd.document import Document, KeyPath
from ftd.spec.design import Cell


def where(document: Document, cell: Cell, path: KeyPath, *, below: bool = True) -> str:
    """File, line and key of the parameter at `path` in `cell`.

    A level counts when it sets `path` or something around it; with `below`, also something in it.
    """
    for level in cell.chosen.values():
        for assigned in level.assignments:
            parts = tuple(assigned.split("."))
            shorter = min(len(parts), len(path))
            if shorter and parts[:shorter] == path[:shorter] and (below or shorter == len(parts)):
                bundled = level.at[-1] == "set"
                return document.where((*level.at, assigned) if bundled else level.at)
    return document.where(path)


def quoted(message: str, params: Mapping[str, Any], base: Path) -> KeyPath | None:
    """The path of the text parameter that `message` quotes, or names as a file below `base`."""
    found = [
        (len(text), path)
        for path, text in _texts((), params)
        if f"'{text}'" in message or os.path.abspath(Path(base, text).expanduser()) in message
    ]
    return max(found)[1] if found else None


def _texts(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        if value:
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts((*path, key), item)
