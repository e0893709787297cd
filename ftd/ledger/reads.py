"""What views and scripts read: frozen rows, never tables.

``as_json`` of these rows is the contract for scripts; their field names are stable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from peewee import fn

from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import (
    Artifact,
    Attempt,
    Device,
    Event,
    Experiment,
    Lease,
    Membership,
    Metric,
    Run,
    Worker,
)
from ftd.ledger.resumed import steps_redone
from ftd.states import RunState


@dataclass(frozen=True)
class RunRow:
    """A run as lists and summaries need it.

    `factors` and `replicate` are those of the experiment asked about (else of the first that has
    it); `metrics` are the final ones, empty before the run is done; `cost_s` is device seconds.
    """

    id: int
    experiments: tuple[str, ...]
    job: str
    state: RunState
    factors: Mapping[str, Any]
    cell: int
    replicate: int
    attempts: int
    cost_s: float
    metrics: Mapping[str, float]
    flags: tuple[str, ...]
    state_sha256: str | None
    approximate: str | None
    error: str | None
    created_at: float
    ended_at: float | None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``ftd runs --json``."""
        return {
            "id": f"r{self.id}",
            "experiments": list(self.experiments),
            "job": self.job,
            "state": str(self.state),
            "factors": dict(self.factors),
            "replicate": self.replicate,
            "attempts": self.attempts,
            "metrics": dict(self.metrics),
            "state_sha256": self.state_sha256,
            "cost_s": round(self.cost_s, 3),
            "flags": list(self.flags),
            "approximate": self.approximate,
            "error": self.error,
        }


@dataclass(frozen=True)
class ExperimentRow:
    """A revision of a named spec; `counts` has its runs by state, None where not counted."""

    id: int
    name: str
    owner: str
    revision: int
    job: str
    primary_metric: str
    submitted_at: float
    admitted: bool
    num_places: int  # cells x replicates
    counts: Mapping[str, int] | None


@dataclass(frozen=True)
class LiveRow:
    """A run that executes now; `progress` holds what its job shows."""

    run_id: int
    experiment: str
    factors: Mapping[str, Any]
    replicate: int
    attempt: int
    device: str
    started_at: float
    step: int
    num_steps: int | None
    resumed_from_step: int | None
    progress: Mapping[str, Any]
    stop_why: str | None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``running`` in ``ftd status --json``."""
        return {
            "id": f"r{self.run_id}",
            "experiment": self.experiment,
            "factors": dict(self.factors),
            "replicate": self.replicate,
            "attempt": self.attempt,
            "device": self.device,
            "started_at": self.started_at,
            "step": self.step,
            "num_steps": self.num_steps,
            "resumed_from_step": self.resumed_from_step,
            "progress": dict(self.progress),
            "stopping": self.stop_why,
        }


@dataclass(frozen=True)
class WaitingRow:
    """A run that waits, with the facts its reason is computed from."""

    run_id: int
    experiment: str
    owner: str
    factors: Mapping[str, Any]
    replicate: int
    state: RunState
    priority: int
    device_kind: str
    admitted: bool
    not_before: float | None
    needs: tuple[int, ...]  # runs that are not done yet
    held_by: str | None
    held_why: str | None


@dataclass(frozen=True)
class DeviceRow:
    """A device as the daemon last saw it; `run_id` is who leases it."""

    id: str
    kind: str
    name: str
    memory_bytes: int | None
    state: str
    detail: str
    present: bool
    seen_at: float
    run_id: int | None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``devices`` in ``ftd status --json``."""
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "memory_bytes": self.memory_bytes,
            "state": self.state,
            "detail": self.detail,
            "present": self.present,
            "run": f"r{self.run_id}" if self.run_id else None,
        }


@dataclass(frozen=True)
class MetricRow:
    """One recorded number of a run."""

    name: str  # split/name
    step: int
    value: float
    attempt: int


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
    places = _places(ledger, ids, experiment)
    tries = _attempt_sums(ledger, ids)
    rows = []
    for row in found:
        place = places[row["id"]]
        num_attempts, cost_s = tries.get(row["id"], (0, 0.0))
        rows.append(
            RunRow(
                id=row["id"],
                experiments=place.experiments,
                job=row["job"],
                state=RunState(row["state"]),
                factors=place.factors,
                cell=place.cell,
                replicate=place.replicate,
                attempts=num_attempts,
                cost_s=cost_s,
                metrics=row["metrics"] or {},
                flags=tuple(row["flags"] or ()),
                state_sha256=row["state_sha256"],
                approximate=row["approximate"],
                error=row["error"],
                created_at=row["created_at"],
                ended_at=row["ended_at"],
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


def running(ledger: Ledger) -> list[LiveRow]:
    """What executes now, oldest first."""
    query = (
        Attempt.select(Attempt, Lease.device)
        .join(Lease, on=(Lease.worker == Attempt.worker) & Lease.released_at.is_null())
        .where(Attempt.outcome.is_null())  # unordered: else SQLite walks all attempts by id
    )
    found = sorted(ledger.rows(query), key=itemgetter("id"))
    places = _places(ledger, [row["run"] for row in found], None)
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
        )
        for row in found
    ]


def waiting(ledger: Ledger, limit: int) -> list[WaitingRow]:
    """Queued runs in the order they will be considered, then held ones."""
    from ftd.ledger.models import Dependency

    found: list[dict[str, Any]] = []
    for state in (RunState.QUEUED, RunState.HELD):
        found += ledger.rows(
            Run.select(Run.id, Run.state, Run.priority, Run.device_kind, Run.not_before)
            .where(Run.state == state)
            .order_by(Run.priority.desc(), Run.id)
            .limit(limit - len(found))
        )
    ids = [row["id"] for row in found]
    places = _places(ledger, ids, None)
    needs: dict[int, list[int]] = defaultdict(list)
    unmet = (
        Dependency.select(Dependency.run, Dependency.needs_run)
        .join(Run, on=Run.id == Dependency.needs_run)
        .where(Dependency.run.in_(ids), Run.state != RunState.DONE)
        .tuples()
    )
    for run, needed in unmet.execute(ledger.db):
        needs[run].append(needed)
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
            needs=tuple(needs[row["id"]]),
            held_by=places[row["id"]].wished_by,
            held_why=places[row["id"]].wished_why,
        )
        for row in found
    ]


def devices(ledger: Ledger) -> list[DeviceRow]:
    """All devices ever seen, GPUs first."""
    leases = dict(
        Lease.select(Lease.device, Attempt.run)
        .join(Attempt, on=Attempt.worker == Lease.worker)
        .where(Lease.released_at.is_null())
        .tuples()
        .execute(ledger.db)
    )
    query = Device.select().order_by(Device.kind.desc(), Device.id)
    return [DeviceRow(**row, run_id=leases.get(row["id"])) for row in ledger.rows(query)]


def metric_rows(ledger: Ledger, run_id: int) -> list[MetricRow]:
    """Everything a run measured, by name and step."""
    query = (
        Metric.select().where(Metric.run == run_id).order_by(Metric.split, Metric.name, Metric.step)
    )
    return [
        MetricRow(f"{row['split']}/{row['name']}", row["step"], row["value"], row["attempt"])
        for row in ledger.rows(query)
    ]


def details(ledger: Ledger, run_id: int) -> dict[str, Any]:
    """All that is known of one run, as ``ftd show RUN --json`` prints it."""
    row = ledger.row(Run.select().where(Run.id == run_id))
    assert row is not None, "callers resolve the id first"
    base = runs(ledger, only=[run_id])[0]
    artifacts = ledger.rows(Artifact.select().where(Artifact.run == run_id).order_by(Artifact.name))
    return {
        **base.as_json(),
        "params": row["params"],
        "provenance": {
            "key": row["key"],
            "job_version": row["job_version"],
            "seeds": row["seeds"],
            "numerics": row["numerics"],
            "threads": row["threads"],
            "device_kind": row["device_kind"],
            "inputs": row["inputs"],
            "versions": row["versions"],
            "approximate": row["approximate"],
        },
        "memberships": [
            {
                "experiment": member["name"],
                "id": f"e{member['experiment']}",
                "cell": member["cell"],
                "replicate": member["replicate"],
                "factors": member["factors"],
                "wish": member["wish"],
                "wished_by": member["wished_by"],
                "wished_why": member["wished_why"],
                "priority": member["priority"],
            }
            for member in ledger.rows(
                Membership.select(Membership, Experiment.name)
                .join(Experiment)
                .where(Membership.run == run_id)
                .order_by(Membership.id)
            )
        ],
        "artifacts": [
            {
                "name": artifact["name"],
                "path": f"runs/r{run_id}/attempts/{artifact['attempt']}/artifacts/"
                + artifact["name"],
                "bytes": artifact["num_bytes"],
                "sha256": artifact["sha256"],
            }
            for artifact in artifacts
        ],
        "attempts": _attempts(ledger, run_id),
        "history": [
            {
                "at": event["at"],
                "kind": event["kind"],
                "who": event["who"],
                "attempt": event["attempt"],
                "data": event["data"],
            }
            for event in ledger.rows(
                Event.select().where(Event.run == run_id).order_by(Event.at, Event.id)
            )
        ],
    }


def _attempts(ledger: Ledger, run_id: int) -> list[dict[str, Any]]:
    query = (
        Attempt.select(Attempt, Worker.boot_id, Worker.pid, Worker.start_ticks, Lease.device)
        .join(Worker)
        .join(Lease, on=Lease.worker == Worker.id)
        .where(Attempt.run == run_id)
        .order_by(Attempt.number)
    )
    rows = ledger.rows(query)
    return [
        {
            "number": row["number"],
            "outcome": row["outcome"],
            "started_at": row["started_at"],
            "ended_at": row["ended_at"],
            "resumed_from_step": row["resumed_from_step"],
            "steps_redone": earlier and steps_redone(earlier, row),
            "step": row["step"],
            "checkpoint_step": row["checkpoint_step"],
            "num_steps": row["num_steps"],
            "device": row["device"],
            "worker": {
                "boot_id": row["boot_id"],
                "pid": row["pid"],
                "start_ticks": row["start_ticks"],
            },
            "numerics": row["fingerprint"],
            "stop_why": row["stop_why"],
            "exit_status": row["exit_status"],
            "error": row["error"],
        }
        for earlier, row in zip([None, *rows], rows, strict=False)
    ]


@dataclass(frozen=True)
class _Place:
    """Where a run stands in the experiments that share it."""

    experiments: tuple[str, ...]
    owner: str
    factors: Mapping[str, Any]
    cell: int
    replicate: int
    admitted: bool
    wished_by: str
    wished_why: str


def _places(ledger: Ledger, ids: Sequence[int], experiment: int | None) -> dict[int, _Place]:
    members: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for some in chunks(ids):
        query = (
            Membership.select(
                Membership.run,
                Membership.experiment,
                Membership.factors,
                Membership.cell,
                Membership.replicate,
                Membership.wished_by,
                Membership.wished_why,
                Experiment.name,
                Experiment.owner,
                Experiment.admitted_at,
            )
            .join(Experiment)
            .where(Membership.run.in_(some))
            .order_by(Membership.id)
        )
        for row in ledger.rows(query):
            members[row["run"]].append(row)
    places = {}
    for run_id in ids:
        rows = members[run_id]
        shown = next((row for row in rows if row["experiment"] == experiment), rows[0])
        places[run_id] = _Place(
            experiments=tuple(dict.fromkeys(row["name"] for row in rows)),
            owner=shown["owner"],
            factors=shown["factors"],
            cell=shown["cell"],
            replicate=shown["replicate"],
            admitted=any(row["admitted_at"] is not None for row in rows),
            wished_by=shown["wished_by"],
            wished_why=shown["wished_why"],
        )
    return places


def _attempt_sums(ledger: Ledger, ids: Sequence[int]) -> dict[int, tuple[int, float]]:
    sums = {}
    for some in chunks(ids):
        query = (
            Attempt.select(
                Attempt.run,
                fn.COUNT(Attempt.id),
                fn.SUM(fn.COALESCE(Attempt.ended_at, Attempt.started_at) - Attempt.started_at),
            )
            .where(Attempt.run.in_(some))
            .group_by(Attempt.run)
            .tuples()
        )
        for run_id, number, seconds in query.execute(ledger.db):
            sums[run_id] = (number, seconds)
    return sums
