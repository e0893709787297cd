"""What runs start from: which of their sources learned next to nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from peewee import SQL

from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Dependency, Run
from ftd.states import AT_CHANCE


def sources_at_chance(ledger: Ledger, ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Of some runs, those that read files of runs which learned nothing: the numbers of these."""
    found: dict[int, list[int]] = defaultdict(list)
    for some in chunks(ids):
        query = (
            Dependency.select(Dependency.run, Dependency.needs_run, Run.flags)
            .join(Run, on=Run.id == Dependency.needs_run)
            .where(Dependency.run.in_(some), Run.flags != SQL("'[]'"))
            .order_by(Dependency.needs_run)
        )
        for row in ledger.rows(query):
            if AT_CHANCE & set(row["flags"]):
                found[row["run"]].append(row["needs_run"])
    return {run: tuple(numbers) for run, numbers in found.items()}
