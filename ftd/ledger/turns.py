"""Which run a worker may execute after the one that it has just executed."""

from __future__ import annotations

from typing import Any

from ftd.ledger.db import Ledger
from ftd.ledger.models import Run
from ftd.ledger.scheduling import eligible_runs
from ftd.source import CODE

# What two runs must have in common to be executed by one process, one after the other.
ALIKE = ("job", "job_version", "device_kind", "numerics", "threads")


def next_turn(ledger: Ledger, run_id: int, at: float) -> int | None:
    """The run that is next at time `at`, `run_id` being done, if the same worker may execute it.

    It is whoever is next on that kind of device; None when that is a run of another kind, or there
    is none.  One that has failed before begins in a process of its own.
    """
    before = _row(ledger, run_id)
    for following in eligible_runs(ledger, before["device_kind"], at, 1, done=run_id):
        found = _row(ledger, following)
        alike = all(found[name] == before[name] for name in ALIKE)
        own = any(name in found["inputs"] for name in CODE)
        if alike and not own and not found["num_failures"]:
            return following
    return None


def _row(ledger: Ledger, run_id: int) -> dict[str, Any]:
    row = ledger.row(
        Run.select(
            Run.job, Run.job_version, Run.device_kind, Run.numerics, Run.threads, Run.inputs,
            Run.num_failures,
        ).where(Run.id == run_id)
    )  # fmt: skip
    assert row is not None, "callers know the run from the ledger"
    return row
