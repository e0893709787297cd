"""Runs that other runs read files of: which may be named, and what waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftd.errors import InputError, UnknownName
from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Dependency, Membership, Run
from ftd.ledger.names import experiment_id, is_run, run_id
from ftd.plan import PlannedRun, no_runs
from ftd.resolve import Producer
from ftd.states import RunState


def producers(ledger: Ledger, text: str) -> tuple[Producer, ...]:
    """The runs that a spec calls `text`: r12, or an experiment of one cell, by replicate.

    They are done or still to be done.  Raises UnknownName, and InputError for runs that will not be
    done or have diverged, and for an experiment with several cells.
    """
    if is_run(text):
        try:
            return (_producer(ledger, run_id(ledger, text)),)
        except UnknownName:
            return no_runs(text)
    rows = ledger.rows(
        Membership.select(Membership.run, Membership.cell, Membership.candidate)
        .where(Membership.experiment == experiment_id(ledger, text))
        .order_by(Membership.replicate)
    )
    if len({(row["cell"], row["candidate"]) for row in rows}) != 1:
        raise InputError(
            f"experiment {text} has several cells or candidates, so its name means no one network",
            fix="Name a run of it (r12): `ftd runs` lists them",
        )
    return tuple(_producer(ledger, row["run"]) for row in rows)


def _producer(ledger: Ledger, number: int) -> Producer:
    row = ledger.row(Run.select(Run.key, Run.state, Run.flags).where(Run.id == number))
    assert row is not None, "it was just found"
    if row["state"] in (RunState.FAILED, RunState.CANCELLED):
        raise InputError(
            f"run 'r{number}' is {row['state']}, so there is nothing to read of it",
            fix=f"First `ftd retry r{number}`, or name another run",
        )
    if "diverged" in (row["flags"] or ()):
        raise InputError(
            f"run 'r{number}' diverged, so what it kept means nothing", fix="Name another run"
        )
    return Producer(f"r{number}", str(row["key"]))


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
