"""Runs that other runs read files of: which a name means, and what waits for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ftd.errors import UnknownName
from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Artifact, Dependency, Membership, Run
from ftd.ledger.names import experiment_id, is_run, run_id
from ftd.planning.plan import PlannedRun
from ftd.planning.producers import Producer, no_runs
from ftd.states import RunState


def producers(ledger: Ledger, text: str) -> tuple[Producer, ...]:
    """The runs that a spec calls `text`: r12, or all those of an experiment, by replicate.

    Raises UnknownName.
    """
    if is_run(text):
        try:
            number = run_id(ledger, text)
        except UnknownName:
            return no_runs(text)
        return (_runs(ledger, [number])[number],)
    query = (
        Membership.select(
            Membership.run,
            Membership.cell,
            Membership.candidate,
            Membership.factors,
            Membership.tuned,
        )
        .where(Membership.experiment == experiment_id(ledger, text))
        .order_by(Membership.replicate)
    )
    found = ledger.rows(query)
    runs = _runs(ledger, [row["run"] for row in found])
    return tuple(
        replace(
            runs[row["run"]],
            factors={**row["factors"], **(row["tuned"] or {})},
            place=(row["cell"], row["candidate"]),
        )
        for row in found
    )


def _runs(ledger: Ledger, numbers: Sequence[int]) -> dict[int, Producer]:
    kept: dict[int, list[str]] = defaultdict(list)
    found = {}
    for some in chunks(sorted(set(numbers))):
        names = Artifact.select(Artifact.run, Artifact.name).where(Artifact.run.in_(some))
        for row in ledger.rows(names.order_by(Artifact.name)):
            kept[row["run"]].append(row["name"])
        query = Run.select(Run.id, Run.key, Run.state, Run.flags, Run.job, Run.params)
        for row in ledger.rows(query.where(Run.id.in_(some))):
            number, state = row["id"], RunState(row["state"])
            found[number] = Producer(
                run=f"r{number}",
                key=row["key"],
                state=state,
                flags=tuple(row["flags"] or ()),
                artifacts=tuple(kept[number]) if state == RunState.DONE else None,
                job=row["job"],
                params=row["params"],
            )
    return found


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
