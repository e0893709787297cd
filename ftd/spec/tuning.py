"""Candidates: the combinations of tuned parameters, the same in every cell.

What is tuned is chosen inside a cell, on validation images, and never compared; so every cell is
given the same grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ftd.errors import SpecError
from ftd.spec.experiment import ExperimentSpec
from ftd.spec.levels import Chosen, read_levels

MAX_CANDIDATES = 10_000


@dataclass(frozen=True)
class Candidate:
    """One combination of tuned levels; without ``tune`` there is one, of nothing."""

    index: int
    chosen: Chosen


def candidates(spec: ExperimentSpec) -> tuple[Candidate, ...]:
    """All candidates in order; the first parameter varies slowest.

    Raises SpecError for malformed levels, too many of them, or a name that is a factor's too.
    """
    return tuple(_candidates(spec))


def _candidates(spec: ExperimentSpec) -> Iterator[Candidate]:
    over = spec.tune.over if spec.tune else {}
    factors = {*spec.factors, *(name for cell in spec.cells or () for name in cell)}
    for name in over:
        if name in factors:
            raise SpecError(
                f"{name} is a factor: what is tuned is not compared",
                where=spec.document.where(("tune", "over", name)),
                fix="Keep it in one of factors and tune",
            )
    levels = [
        read_levels(spec, name, values, ("tune", "over", name)) for name, values in over.items()
    ]
    number = math.prod(len(some) for some in levels)
    if number > MAX_CANDIDATES:
        raise SpecError(
            f"{number:,} candidates, the limit is {MAX_CANDIDATES:,}",
            where=spec.document.where(("tune", "over")),
            fix="Use fewer levels",
        )
    for index, combination in enumerate(itertools.product(*levels)):
        yield Candidate(index, dict(zip(over, combination, strict=True)))
