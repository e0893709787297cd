"""What must hold between rows beyond what an index can say, and which rows break it."""

from __future__ import annotations

from dataclasses import dataclass

from peewee import JOIN, fn

from ftd.ledger.db import Ledger
from ftd.ledger.models import Artifact, Attempt, Experiment, Lease, Membership, Run, Worker
from ftd.ledger.wishes import wished_state_and_priority
from ftd.process import Identity
from ftd.states import Outcome, RunState


@dataclass(frozen=True)
class StrayAttempt:
    """A live attempt that the daemon cannot follow as it stands."""

    id: int
    run_id: int
    number: int
    run_state: RunState
    leased: bool
    identity: Identity | None


@dataclass(frozen=True)
class StrayLease:
    """A device held for a worker that executes nothing."""

    id: int
    device: str
    worker: str  # its directory, relative to the home


@dataclass(frozen=True)
class KeptFile:
    """An artifact as the ledger recorded it."""

    run_id: int
    attempt: int
    name: str
    num_bytes: int
    sha256: str


def running_without_attempt(ledger: Ledger) -> list[int]:
    """Runs that are said to execute although no attempt of theirs is live."""
    live = Attempt.select(Attempt.id).where(Attempt.run == Run.id, Attempt.outcome.is_null())
    return ledger.values(
        Run.select(Run.id).where(Run.state == RunState.RUNNING, ~fn.EXISTS(live)).order_by(Run.id)
    )


def stray_attempts(ledger: Ledger) -> list[StrayAttempt]:
    """Live attempts without a live lease, or of runs that do not execute."""
    query = (
        Attempt.select(
            Attempt.id, Attempt.run, Attempt.number, Run.state, Lease.id.alias("lease"),
            Worker.boot_id, Worker.pid, Worker.start_ticks,
        )
        .join(Run, on=Run.id == Attempt.run)
        .join(Worker, on=Worker.id == Attempt.worker)
        .join(
            Lease, JOIN.LEFT_OUTER,
            on=(Lease.worker == Attempt.worker) & Lease.released_at.is_null(),
        )
        .where(
            Attempt.outcome.is_null(), Lease.id.is_null() | (Run.state != RunState.RUNNING)
        )
    )  # fmt: skip
    return [
        StrayAttempt(
            row["id"], row["run"], row["number"], RunState(row["state"]),
            row["lease"] is not None, Identity.from_json(row),
        )
        for row in ledger.rows(query)
    ]  # fmt: skip


def stray_leases(ledger: Ledger) -> list[StrayLease]:
    """Live leases of workers without a live attempt."""
    live = Attempt.select(Attempt.id).where(
        Attempt.worker == Lease.worker, Attempt.outcome.is_null()
    )
    query = (
        Lease.select(Lease.id, Lease.device, Worker.directory)
        .join(Worker)
        .where(Lease.released_at.is_null(), ~fn.EXISTS(live))
    )
    return [StrayLease(row["id"], row["device"], row["directory"]) for row in ledger.rows(query)]


def against_wishes(ledger: Ledger) -> list[tuple[int, RunState, RunState]]:
    """(run, its state, the wished one) of waiting runs that do not stand where they are wished.

    A run whose priority is not the highest wanting one's counts too: then both states are equal.
    """
    wished, priority = wished_state_and_priority()
    query = Run.select(
        Run.id, Run.state, wished.alias("wished"), Run.priority, priority.alias("wanted")
    ).where(Run.state.in_((RunState.QUEUED, RunState.HELD)))
    return [
        (row["id"], RunState(row["state"]), RunState(row["wished"]))
        for row in ledger.rows(query)
        if row["state"] != row["wished"] or row["priority"] != row["wanted"]
    ]


def done_without_result(ledger: Ledger) -> list[int]:
    """Runs that are done although they lack metrics, a state digest or a completed attempt."""
    completed = Attempt.select(Attempt.id).where(
        Attempt.run == Run.id, Attempt.outcome == Outcome.COMPLETED
    )
    incomplete = Run.metrics.is_null() | Run.state_sha256.is_null() | ~fn.EXISTS(completed)
    return ledger.values(
        Run.select(Run.id).where(Run.state == RunState.DONE, incomplete).order_by(Run.id)
    )


def unadmitted(ledger: Ledger) -> list[int]:
    """Experiments that the daemon has not pulled from the queue yet."""
    return ledger.values(Experiment.select(Experiment.id).where(Experiment.admitted_at.is_null()))


def without_memberships(ledger: Ledger) -> list[int]:
    """Runs that have no place in any experiment: nobody can ask for them."""
    places = Membership.select(Membership.id).where(Membership.run == Run.id)
    return ledger.values(Run.select(Run.id).where(~fn.EXISTS(places)).order_by(Run.id))


def kept_files(ledger: Ledger) -> list[KeptFile]:
    """All artifacts that runs keep."""
    query = Artifact.select().order_by(Artifact.run, Artifact.name)
    return [
        KeptFile(row["run"], row["attempt"], row["name"], row["num_bytes"], row["sha256"])
        for row in ledger.rows(query)
    ]


def run_states(ledger: Ledger) -> dict[int, RunState]:
    """The state of every run."""
    query = Run.select(Run.id, Run.state).tuples()
    return {run_id: RunState(state) for run_id, state in query.execute(ledger.db)}
