"""An experiment place by place: what summaries, exports and waits read.

A place is a cell and replicate, with one candidate where nothing is tuned and several where they
are chosen from.  Two places of one experiment may share a run (parameters that cannot matter), so
that it has as many places as cells x replicates x candidates but perhaps fewer runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peewee import fn

from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Attempt, Experiment, Membership, Run
from ftd.ledger.reads import runs
from ftd.ledger.rows import RunRow
from ftd.outline import Outline
from ftd.states import RunState


@dataclass(frozen=True)
class PlaceRow:
    """A cell and replicate of an experiment, one of its candidates, and the run that answers it."""

    cell: int
    replicate: int
    factors: Mapping[str, Any]
    run: RunRow
    candidate: int = 0
    tuned: Mapping[str, Any] = field(default_factory=dict)


def places(ledger: Ledger, experiment: int) -> list[PlaceRow]:
    """All places of an experiment by cell, replicate and candidate."""
    with ledger.snapshot():
        by_id = {row.id: row for row in runs(ledger, experiment=experiment)}
        query = (
            Membership.select(
                Membership.cell, Membership.replicate, Membership.factors, Membership.run,
                Membership.candidate, Membership.tuned,
            )
            .where(Membership.experiment == experiment)
            .order_by(Membership.cell, Membership.replicate, Membership.candidate)
        )  # fmt: skip
        return [
            PlaceRow(
                row["cell"], row["replicate"], row["factors"], by_id[row["run"]],
                row["candidate"], row["tuned"] or {},
            )
            for row in ledger.rows(query)
        ]  # fmt: skip


def outline(ledger: Ledger, experiment: int) -> Outline:
    """How an experiment's places are to be read."""
    query = Experiment.select(Experiment.outline).where(Experiment.id == experiment)
    row = ledger.row(query)
    assert row is not None, "callers resolve the id first"
    return Outline.from_json(row["outline"])


def state_counts(
    ledger: Ledger, experiment_ids: Sequence[int], run_ids: Sequence[int]
) -> dict[RunState, int]:
    """Distinct runs per state among some experiments' runs and some runs; all runs for neither."""
    counted: dict[RunState, int] = {}
    query = Run.select(Run.state, fn.COUNT(Run.id)).group_by(Run.state)
    if experiment_ids or run_ids:
        members = Membership.select(Membership.run).where(
            Membership.experiment.in_(list(experiment_ids))
        )
        query = query.where(Run.id.in_(members) | Run.id.in_(list(run_ids)))
    for state, number in query.tuples().execute(ledger.db):
        counted[RunState(state)] = number
    return counted


def states_of(ledger: Ledger, run_ids: Sequence[int]) -> dict[int, RunState]:
    """The state of each of some runs."""
    found: dict[int, RunState] = {}
    for some in chunks(run_ids):
        query = Run.select(Run.id, Run.state).where(Run.id.in_(list(some)))
        found |= {row["id"]: RunState(row["state"]) for row in ledger.rows(query)}
    return found


def last_attempt(ledger: Ledger, run_id: int) -> int:
    """The number of a run's newest attempt, 0 before there is one."""
    newest = Attempt.select(fn.MAX(Attempt.number)).where(Attempt.run == run_id)
    return ledger.values(newest)[0] or 0
