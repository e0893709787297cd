"""Whether measures order things alike: ranks, and Kendall's tau between two orders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each of finite `values`, 1 for the smallest; equal ones share their mean rank."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    found = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in range(first, last + 1):
            found[order[place]] = (first + last) / 2 + 1
        first = last + 1
    return found


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b between two lists of equal length: 1 the same order, -1 the opposite.

    Pairs tied in one list count for neither: (C - D) / sqrt((n0 - n1) (n0 - n2)).  None where one
    list has no two different values.  Kendall, The treatment of ties in ranking problems,
    Biometrika 33 (1945).
    """
    agreement = untied_first = untied_second = 0
    for (a, x), (b, y) in combinations(zip(first, second, strict=True), 2):
        one, other = (a > b) - (a < b), (x > y) - (x < y)
        agreement += one * other
        untied_first += one != 0
        untied_second += other != 0
    if not untied_first or not untied_second:
        return None
    return agreement / math.sqrt(untied_first * untied_second)
