"""Lists of runs and experiments, as views and scripts read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peewee import fn

from ftd.ledger.costs import Cost, costs
from ftd.ledger.db import Ledger
from ftd.ledger.models import Experiment, Membership, Run
from ftd.ledger.rows import ExperimentRow, RunRow
from ftd.ledger.sources import sources_at_chance
from ftd.ledger.standing import standings
from ftd.states import RunState


def counts(ledger: Ledger) -> dict[str, int]:
    """Number of runs per state, every state named."""
    query = Run.select(Run.state, fn.COUNT(Run.id)).group_by(Run.state).tuples()
    found: dict[str, int] = dict(query.execute(ledger.db))
    return {str(state): found.get(state, 0) for state in RunState}


def experiments(
    ledger: Ledger, only: int | None = None, limit: int = 1000, count_up_to: int | None = None
) -> list[ExperimentRow]:
    """Experiments, newest first.

    The states of runs are counted for the newest ones until `count_up_to` places are reached:
    counting takes about a microsecond each.
    """
    query = Experiment.select().order_by(Experiment.id.desc()).limit(limit)
    if only is not None:
        query = query.where(Experiment.id == only)
    found = ledger.rows(query)
    places = _num_places(ledger, [row["id"] for row in found])
    counted, total = [], 0
    for row in found:
        total += places.get(row["id"], 0)
        if count_up_to is None or total <= count_up_to:
            counted.append(row["id"])
    states: dict[int, dict[str, int]] = {number: {} for number in counted}
    grouped = (
        Membership.select(Membership.experiment, Run.state, fn.COUNT(Run.id.distinct()))
        .join(Run)
        .where(Membership.experiment.in_(counted))
        .group_by(Membership.experiment, Run.state)
        .tuples()
    )
    for experiment, state, number in grouped.execute(ledger.db):
        states[experiment][state] = number
    return [
        ExperimentRow(
            id=row["id"],
            name=row["name"],
            owner=row["owner"],
            revision=row["revision"],
            job=row["job"],
            primary_metric=row["primary_metric"],
            submitted_at=row["submitted_at"],
            admitted=row["admitted_at"] is not None,
            num_places=places.get(row["id"], 0),
            counts=states.get(row["id"]),
        )
        for row in found
    ]


def _num_places(ledger: Ledger, ids: Sequence[int]) -> dict[int, int]:
    query = (
        Membership.select(Membership.experiment, fn.COUNT(Membership.cell))
        .where(Membership.experiment.in_(ids))
        .group_by(Membership.experiment)
    )
    return dict(query.tuples().execute(ledger.db))


def runs(
    ledger: Ledger,
    *,
    experiment: int | None = None,
    only: Sequence[int] | None = None,
    states: Iterable[RunState] | None = None,
) -> list[RunRow]:
    """Runs in the order of their ids, each once, chosen by experiment, ids and states."""
    query = Run.select(
        Run.id, Run.job, Run.state, Run.metrics, Run.flags, Run.state_sha256, Run.approximate,
        Run.error, Run.created_at, Run.ended_at,
    ).order_by(Run.id)  # fmt: skip
    if experiment is not None:
        members = Membership.select(Membership.run).where(Membership.experiment == experiment)
        query = query.where(Run.id.in_(members))
    if only is not None:
        query = query.where(Run.id.in_(list(only)))
    if states is not None:
        query = query.where(Run.state.in_(list(states)))
    found = ledger.rows(query)
    ids = [row["id"] for row in found]
    places = standings(ledger, ids, experiment)
    cost_of = costs(ledger, ids)
    at_chance = sources_at_chance(ledger, ids)
    rows = []
    for row in found:
        place = places[row["id"]]
        cost = cost_of.get(row["id"], Cost())
        rows.append(
            RunRow(
                id=row["id"],
                experiments=place.experiments,
                job=row["job"],
                state=RunState(row["state"]),
                factors=place.factors,
                cell=place.cell,
                replicate=place.replicate,
                attempts=cost.attempts,
                cost_actual_s=cost.actual_s,
                cost_alone_s=cost.alone_s,
                metrics=row["metrics"] or {},
                primary_metric=place.primary_metric,
                flags=tuple(row["flags"] or ()),
                state_sha256=row["state_sha256"],
                approximate=row["approximate"],
                error=row["error"],
                created_at=row["created_at"],
                ended_at=row["ended_at"],
                sources_at_chance=at_chance.get(row["id"], ()),
            )
        )
    return rows


def recent(ledger: Ledger, limit: int) -> list[RunRow]:
    """The runs that ended last, newest first."""
    ids = ledger.values(
        Run.select(Run.id)
        .where(Run.ended_at.is_null(False))
        .order_by(Run.ended_at.desc())
        .limit(limit)
    )
    by_id = {row.id: row for row in runs(ledger, only=ids)}
    return [by_id[run_id] for run_id in ids]
