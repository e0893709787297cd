"""What a design cannot tell apart, because it always changes together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any


def confounded(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of factors that vary, each level of one going with one level of the other only.

    Cells in which either does not exist say nothing about a pair.
    """
    names = dict.fromkeys(name for cell in cells for name in cell)
    return [(one, other) for one, other in combinations(names, 2) if _together(cells, one, other)]


def bundled(levels: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, tuple[str, ...]]:
    """Factors whose levels differ in several parameters: name -> these, as first set.

    `levels` has what each level of a factor sets; what it leaves alone counts as another value.
    """
    found = {}
    for name, some in levels.items():
        paths = dict.fromkeys(path for level in some for path in level)
        differing = tuple(path for path in paths if len({_set(level, path) for level in some}) > 1)
        if len(differing) > 1:
            found[name] = differing
    return found


def _set(level: Mapping[str, Any], path: str) -> str:
    return json.dumps(level[path], sort_keys=True) if path in level else ""


def _together(cells: Sequence[Mapping[str, Any]], one: str, other: str) -> bool:
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for cell in cells:
        if one in cell and other in cell:
            a, b = json.dumps(cell[one]), json.dumps(cell[other])
            if there.setdefault(a, b) != b or back.setdefault(b, a) != a:
                return False
    return len(there) > 1
