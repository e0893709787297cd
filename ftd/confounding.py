"""Factors that cannot be told apart, because their levels always change together."""

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


def _together(cells: Sequence[Mapping[str, Any]], one: str, other: str) -> bool:
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for cell in cells:
        if one in cell and other in cell:
            a, b = json.dumps(cell[one]), json.dumps(cell[other])
            if there.setdefault(a, b) != b or back.setdefault(b, a) != a:
                return False
    return len(there) > 1
