"""Ledgers and plans made by hand, for tests that need no spec and no daemon."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftd.layout import Home
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.enqueue import Enqueued, write_plan
from ftd.planning.plan import Place, Plan, PlannedRun
from ftd.seeds import streams


def new_ledger(folder: Path) -> Ledger:
    """A ledger in a home of its own."""
    return open_ledger(Home(folder / "home"), create=True)


def plan(
    name: str = "study",
    levels: Sequence[Any] = (1, 2),
    replicates: int = 2,
    *,
    salt: str = "",
    params: Mapping[str, Any] | None = None,
) -> Plan:
    """A plan of len(levels) x replicates runs of job `drill`; equal levels share runs."""
    runs, places = {}, []
    for cell, level in enumerate(levels):
        for replicate in range(replicates):
            key = hashlib.sha256(f"{level}/{replicate}/{salt}".encode()).hexdigest()
            places.append(Place(cell, replicate, {"level": level}, key))
            runs[key] = PlannedRun(
                key=key,
                job="drill",
                job_version=1,
                params=dict(params or {"steps": 3}),
                seeds=streams(1, replicate),
                numerics="exact",
                threads=1,
                device_kind="cpu",
                inputs={},
                versions={},
                time_limit_s=None,
            )
    return Plan(
        name=name,
        job="drill",
        runs=tuple(runs.values()),
        places=tuple(places),
        cells=tuple({"level": level} for level in levels),
        replicates=replicates,
        priority=0,
        primary_metric="test/score",
        spec_digest=hashlib.sha256(f"{name}{list(levels)}{replicates}{salt}".encode()).hexdigest(),
    )


def enqueue(ledger: Ledger, planned: Plan, *, owner: str = "ann", priority: int = 0) -> Enqueued:
    """Write a plan and admit it at once."""
    from ftd.ledger.wishes import admit

    return write_plan(
        ledger,
        planned,
        spec_text="",
        base="/",
        owner=owner,
        priority=priority,
        announce=lambda experiment: admit(ledger, experiment),
    )
