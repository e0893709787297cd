"""Runs that other runs read files of: which may be named, and what waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftd.errors import InputError, UnknownName
from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Dependency, Run
from ftd.ledger.names import run_id
from ftd.plan import PlannedRun, no_runs
from ftd.states import RunState


def producing_key(ledger: Ledger, text: str) -> str:
    """The key of the run that a spec calls `text` (r12), which is done or still to be done.

    Raises UnknownName, and InputError for a run that will not be done or has diverged.
    """
    try:
        number = run_id(ledger, text)
    except UnknownName:
        return no_runs(text)
    row = ledger.row(Run.select(Run.key, Run.state, Run.flags).where(Run.id == number))
    assert row is not None, "it was just found"
    if row["state"] in (RunState.FAILED, RunState.CANCELLED):
        raise InputError(
            f"run '{text}' is {row['state']}, so there is nothing to read of it",
            fix=f"First `ftd retry {text}`, or name another run",
        )
    if "diverged" in (row["flags"] or ()):
        raise InputError(
            f"run '{text}' diverged, so what it kept means nothing", fix="Name another run"
        )
    return str(row["key"])


def write_dependencies(
    ledger: Ledger, planned: Sequence[PlannedRun], ids: Mapping[str, int]
) -> None:
    """Let each of the `planned` runs wait for those it reads; `ids` has their numbers by key."""
    needs = {
        (ids[run.key], source["fingerprint"])
        for run in planned
        for source in run.inputs.values()
        if source["kind"] == "run"
    }
    found = {
        row["key"]: row["id"]
        for some in chunks(sorted({key for _, key in needs}))
        for row in ledger.rows(Run.select(Run.id, Run.key).where(Run.key.in_(some)))
    }
    ledger.insert_all(
        Dependency, ({"run": run, "needs_run": found[key]} for run, key in sorted(needs))
    )
