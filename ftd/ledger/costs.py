"""What runs cost in device seconds: what they took, and what they would have taken alone.

Runs share decoded images and other results through the store.  Whichever comes first computes them,
so what a run took says more about the order of runs than about the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peewee import fn

from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Attempt, Timing
from ftd.protocol import SHARED_ACTUAL, SHARED_ALONE


@dataclass(frozen=True)
class Cost:
    """What a run cost so far, over `attempts`, those included that were lost.

    `actual_s` are the seconds that it held its device.  `alone_s` are those less what getting
    shared results took, plus what computing them takes: what the run would have cost if nobody
    had shared anything.
    """

    attempts: int = 0
    actual_s: float = 0.0
    alone_s: float = 0.0


def costs(ledger: Ledger, run_ids: Sequence[int]) -> dict[int, Cost]:
    """The cost of each of some runs that has been attempted."""
    found = {}
    for some in chunks(run_ids):
        spent, alone = _shared(ledger, some)
        seconds = fn.COALESCE(Attempt.ended_at, Attempt.started_at) - Attempt.started_at
        query = (
            Attempt.select(Attempt.run, fn.COUNT(Attempt.id), fn.SUM(seconds))
            .where(Attempt.run.in_(some))
            .group_by(Attempt.run)
            .tuples()
        )
        for run, number, actual_s in query.execute(ledger.db):
            alone_s = actual_s - spent.get(run, 0.0) + alone.get(run, 0.0)
            found[run] = Cost(number, actual_s, max(alone_s, 0.0))
    return found


def figures(ledger: Ledger, run_ids: Sequence[int]) -> dict[int, dict[str, float]]:
    """What each of some runs recorded of its speed and size, by name: the mean over all records,
    of sizes (``..._bytes``) the largest."""
    found: dict[int, dict[str, float]] = {}
    for some in chunks(run_ids):
        query = (
            Timing.select(Timing.run, Timing.name, fn.AVG(Timing.value), fn.MAX(Timing.value))
            .where(Timing.run.in_(some), Timing.name.not_in((SHARED_ACTUAL, SHARED_ALONE)))
            .group_by(Timing.run, Timing.name)
            .tuples()
        )
        for run, name, mean, largest in query.execute(ledger.db):
            found.setdefault(run, {})[name] = largest if name.endswith("_bytes") else mean
    return found


def _shared(ledger: Ledger, run_ids: Sequence[int]) -> tuple[dict[int, float], dict[int, float]]:
    """By run, what its attempts spent on shared results, and what computing these once takes."""
    spent: dict[int, float] = {}
    alone: dict[int, float] = {}
    query = (
        Timing.select(Timing.run, Timing.name, fn.MAX(Timing.value))
        .where(Timing.run.in_(run_ids), Timing.name.in_((SHARED_ACTUAL, SHARED_ALONE)))
        .group_by(Timing.run, Timing.name, Timing.attempt)
        .tuples()
    )
    for run, name, seconds in query.execute(ledger.db):
        if name == SHARED_ACTUAL:
            spent[run] = spent.get(run, 0.0) + seconds
        else:
            alone[run] = max(alone.get(run, 0.0), seconds)
    return spent, alone
