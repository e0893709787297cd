"""What executes now, and what waits for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from ftd.ledger.db import Ledger
from ftd.ledger.models import Attempt, Dependency, Event, Lease, Run
from ftd.ledger.rows import LiveRow, WaitingRow
from ftd.ledger.sources import sources_at_chance
from ftd.ledger.standing import standings
from ftd.states import RunState


def running(ledger: Ledger) -> list[LiveRow]:
    """What executes now, oldest first."""
    query = (
        Attempt.select(Attempt, Lease.device)
        .join(Lease, on=(Lease.worker == Attempt.worker) & Lease.released_at.is_null())
        .where(Attempt.outcome.is_null())  # unordered: else SQLite walks all attempts by id
    )
    found = sorted(ledger.rows(query), key=itemgetter("id"))
    places = standings(ledger, [row["run"] for row in found])
    troubles = _troubles(ledger, found)
    at_chance = sources_at_chance(ledger, [row["run"] for row in found])
    return [
        LiveRow(
            run_id=row["run"],
            experiment=next(iter(places[row["run"]].experiments), ""),
            factors=places[row["run"]].factors,
            replicate=places[row["run"]].replicate,
            attempt=row["number"],
            device=row["device"],
            started_at=row["started_at"],
            step=row["step"],
            num_steps=row["num_steps"],
            resumed_from_step=row["resumed_from_step"],
            progress=row["progress"] or {},
            stop_why=row["stop_why"],
            trouble=troubles.get(row["run"]),
            sources_at_chance=at_chance.get(row["run"], ()),
        )
        for row in found
    ]


def _troubles(ledger: Ledger, live: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """What was last recorded that keeps live attempts from going on, by run."""
    numbers = {row["run"]: row["number"] for row in live}
    query = Event.select(Event.id, Event.run, Event.attempt, Event.data).where(
        Event.run.in_(list(numbers)), Event.kind == "blocked"
    )  # unordered: else SQLite could walk all events by id
    said = sorted(ledger.rows(query), key=itemgetter("id"))
    return {
        event["run"]: event["data"]["why"]
        for event in said
        if event["attempt"] == numbers[event["run"]]
    }


def waiting(ledger: Ledger, limit: int) -> list[WaitingRow]:
    """Queued runs in the order they will be considered, then held ones."""
    found: list[dict[str, Any]] = []
    for state in (RunState.QUEUED, RunState.HELD):
        found += ledger.rows(
            Run.select(Run.id, Run.state, Run.priority, Run.device_kind, Run.not_before, Run.error)
            .where(Run.state == state)
            .order_by(Run.priority.desc(), Run.id)
            .limit(limit - len(found))
        )
    ids = [row["id"] for row in found]
    places = standings(ledger, ids)
    needs: dict[int, dict[int, RunState]] = defaultdict(dict)
    unmet = (
        Dependency.select(Dependency.run, Dependency.needs_run, Run.state)
        .join(Run, on=Run.id == Dependency.needs_run)
        .where(Dependency.run.in_(ids), Run.state != RunState.DONE)
        .order_by(Dependency.needs_run)
        .tuples()
    )
    for run, needed, state in unmet.execute(ledger.db):
        needs[run][needed] = RunState(state)
    at_chance = sources_at_chance(ledger, ids)
    return [
        WaitingRow(
            run_id=row["id"],
            experiment=next(iter(places[row["id"]].experiments), ""),
            owner=places[row["id"]].owner,
            factors=places[row["id"]].factors,
            replicate=places[row["id"]].replicate,
            state=RunState(row["state"]),
            priority=row["priority"],
            device_kind=row["device_kind"],
            admitted=places[row["id"]].admitted,
            not_before=row["not_before"],
            needs=needs[row["id"]],
            held_by=places[row["id"]].wished_by,
            held_why=places[row["id"]].wished_why,
            error=row["error"],
            sources_at_chance=at_chance.get(row["id"], ()),
        )
        for row in found
    ]
