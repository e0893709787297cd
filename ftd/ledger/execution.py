"""The life of attempts: started, spawned, asked to stop, ended.  Each step is one transaction.

A run has one live attempt at most (an index); an attempt is ended together with everything that
follows from it: the run's state, its result, the worker's leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

from peewee import fn

from ftd import faults
from ftd.clock import now
from ftd.ledger import data_waits
from ftd.ledger.db import Ledger
from ftd.ledger.models import (
    Artifact,
    Attempt,
    Dependency,
    Event,
    Lease,
    Membership,
    Run,
    Timing,
    Worker,
)
from ftd.ledger.wishes import settle
from ftd.process import Identity
from ftd.protocol import WAITS_FOR_DATA, Result
from ftd.states import Outcome, RunState, Wish


@dataclass(frozen=True)
class LiveAttempt:
    """An attempt that has not ended, as the ledger knows it."""

    id: int
    run_id: int
    number: int
    worker_id: int
    device: str
    identity: Identity | None  # None: the daemon died between recording and spawning it
    started_at: float
    stop_why: str | None
    stop_requested_at: float | None
    time_limit_s: float | None
    spent_s: float  # what earlier attempts took, since one of them last ran out of time
    num_failures: int
    events_offset: int
    begun: bool  # its job says what it computes with, so its inputs were there
    wanted: bool  # a membership still wishes the run to run
    held: bool  # none wishes it to run, but one holds it


@dataclass(frozen=True)
class Ending:
    """How an attempt ended and where its run stands then."""

    outcome: Outcome
    next_state: RunState  # QUEUED means: wherever its memberships wish
    result: Result | None
    error: str | None = None
    exit_status: int | None = None
    not_before: float | None = None
    num_failures: int = 0
    ended_at: float | None = None  # UTC seconds; None: just now


def order_fields(ledger: Ledger, run_id: int) -> dict[str, Any]:
    """The facts of a run that a worker's order is made from."""
    row = ledger.row(
        Run.select(
            Run.key, Run.job, Run.job_version, Run.params, Run.seeds, Run.device_kind,
            Run.numerics, Run.threads, Run.inputs,
        ).where(Run.id == run_id)
    )  # fmt: skip
    assert row is not None, "an attempt has a run"
    return row


def start_attempt(
    ledger: Ledger, run_id: int, device: str, *, after: int = 0, worker: int | None = None
) -> LiveAttempt | None:
    """Claim a queued run and a device for a new attempt, numbered above `after` too.

    It is a new worker's, or that of a `worker` (its id) which holds the device already.  None when
    the run is no longer queued or no longer wanted.  Raises peewee.IntegrityError when the device
    is leased.
    """
    with ledger.transaction():
        claimed = ledger.write(
            Run.update(state=RunState.RUNNING, not_before=None).where(
                Run.id == run_id, Run.state == RunState.QUEUED
            )
        )
        if not claimed:
            return None
        last = ledger.values(Attempt.select(fn.MAX(Attempt.number)).where(Attempt.run == run_id))[0]
        number = max(last or 0, after) + 1
        if worker is None:
            worker = ledger.insert(
                Worker, directory=f"runs/r{run_id}/attempts/{number}", started_at=now()
            )
            ledger.insert(Lease, device=device, worker=worker, taken_at=now())
        attempt = ledger.insert(Attempt, run=run_id, number=number, worker=worker, started_at=now())
        record(ledger, "attempt started", run=run_id, attempt=number, data={"device": device})
        return next(live for live in live_attempts(ledger) if live.id == attempt)


def attempt_numbers(ledger: Ledger, run_id: int) -> set[int]:
    """The numbers of all attempts of a run."""
    return set(ledger.values(Attempt.select(Attempt.number).where(Attempt.run == run_id)))


def record_spawn(ledger: Ledger, worker_id: int, identity: Identity) -> None:
    """Remember which process a worker is."""
    with ledger.transaction():
        ledger.write(
            Worker.update(
                boot_id=identity.boot_id, pid=identity.pid, start_ticks=identity.start_ticks
            ).where(Worker.id == worker_id)
        )


def record_stop(ledger: Ledger, attempt_id: int, why: str) -> None:
    """Remember that an attempt was asked to leave, once."""
    with ledger.transaction():
        ledger.write(
            Attempt.update(stop_why=why, stop_requested_at=now()).where(
                Attempt.id == attempt_id, Attempt.stop_requested_at.is_null()
            )
        )


def live_attempts(ledger: Ledger) -> list[LiveAttempt]:
    """All attempts that have not ended, oldest first."""
    return [
        LiveAttempt(
            id=row["id"],
            run_id=row["run_id"],
            number=row["number"],
            worker_id=row["worker_id"],
            device=row["device"],
            identity=Identity.from_json(row),
            started_at=row["started_at"],
            stop_why=row["stop_why"],
            stop_requested_at=row["stop_requested_at"],
            time_limit_s=row["time_limit_s"],
            spent_s=row["spent_s"],
            num_failures=row["num_failures"],
            events_offset=row["events_offset"],
            begun=bool(row["begun"]),
            wanted=row["wanting"] > 0,
            held=row["holding"] > 0,
        )
        for row in sorted(ledger.rows_of(*_live_attempts_sql()), key=itemgetter("id"))
    ]


@cache
def _live_attempts_sql() -> tuple[str, list[Any]]:
    """SQL and its values, the same at every look."""
    wishes = Membership.select(fn.COUNT(Membership.id)).where(Membership.run == Attempt.run)
    late, earlier = Attempt.alias(), Attempt.alias()
    last_late = late.select(fn.COALESCE(fn.MAX(late.number), 0)).where(
        late.run == Attempt.run, late.outcome == Outcome.TIMED_OUT
    )
    waited = fn.COALESCE(earlier.stop_why, "") == WAITS_FOR_DATA  # counts for no time limit
    spent_s = earlier.select(fn.TOTAL(earlier.ended_at - earlier.started_at)).where(
        earlier.run == Attempt.run, earlier.number > last_late, ~waited
    )
    query = (
        Attempt.select(
            Attempt.id,
            Attempt.run,
            Attempt.number,
            Attempt.worker,
            Attempt.started_at,
            Attempt.stop_why,
            Attempt.stop_requested_at,
            Worker.boot_id,
            Worker.pid,
            Worker.start_ticks,
            Lease.device,
            Attempt.events_offset,
            (Attempt.fingerprint.is_null(False) | (Attempt.step > 0)).alias("begun"),
            Run.time_limit_s,
            spent_s.alias("spent_s"),
            Run.num_failures,
            wishes.where(Membership.wish == Wish.RUN).alias("wanting"),
            wishes.where(Membership.wish == Wish.HOLD).alias("holding"),
        )
        .join(Worker)
        .join(Lease, on=(Lease.worker == Worker.id) & Lease.released_at.is_null())
        .join(Run, on=Run.id == Attempt.run)
        .where(Attempt.outcome.is_null())  # unordered: else SQLite walks all attempts by id
    )
    statement, values = query.sql()
    return statement, values


def end_attempt(
    ledger: Ledger, attempt: LiveAttempt, ending: Ending, *, with_worker: bool = True
) -> RunState:
    """End an attempt with all that follows from it; the state its run stands in now.

    Not `with_worker`: the worker keeps its device, for what it executes next.  Ending an attempt
    twice changes nothing (the second finds no live attempt).
    """
    result = ending.result
    missing = None if result is None else result.missing
    with ledger.transaction():
        completed = result if ending.outcome == Outcome.COMPLETED else None
        ended = ledger.write(
            Attempt.update(
                outcome=ending.outcome,
                ended_at=now() if ending.ended_at is None else ending.ended_at,
                exit_status=ending.exit_status,
                error=ending.error,
                **({"step": completed.num_steps} if completed else {}),
            ).where(Attempt.id == attempt.id, Attempt.outcome.is_null())
        )
        if ended:
            if with_worker:
                _end_worker(ledger, attempt.worker_id)
            why = ending.error if missing is None else data_waits.words(missing)
            final = ending.next_state in (RunState.DONE, RunState.FAILED)
            ledger.write(
                Run.update(
                    state=ending.next_state,
                    not_before=ending.not_before,
                    num_failures=ending.num_failures,
                    ended_at=now() if final else None,
                    **(_numbers(completed) if completed else {"error": why}),
                ).where(Run.id == attempt.run_id)
            )
            if missing is not None and ending.not_before is not None:
                _wait_for_data(ledger, attempt, missing, ending.not_before)
            if completed:
                _keep_files(ledger, attempt, completed)
            if not final:  # a cancelled or held wish may have come while it ran
                settle(ledger, [attempt.run_id])
            if ending.next_state == RunState.FAILED:
                _fail_dependents(ledger, attempt.run_id)
            record(
                ledger,
                "attempt ended",
                run=attempt.run_id,
                attempt=attempt.number,
                data={"outcome": ending.outcome, "error": ending.error},
            )
        faults.point("end.before_commit")
        state = ledger.values(Run.select(Run.state).where(Run.id == attempt.run_id))[0]
    faults.point("end.after_commit")
    return RunState(state)


def record(
    ledger: Ledger,
    kind: str,
    *,
    run: int | None = None,
    experiment: int | None = None,
    attempt: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write one event of the daemon's into the history."""
    ledger.insert(
        Event, at=now(), kind=kind, run=run, experiment=experiment, attempt=attempt, data=data
    )


def progressed(ledger: Ledger, attempt_id: int) -> bool:
    """Whether an attempt left a newer checkpoint than the one it started from."""
    row = ledger.row(
        Attempt.select(Attempt.checkpoint_step, Attempt.resumed_from_step).where(
            Attempt.id == attempt_id
        )
    )
    return row is not None and (row["checkpoint_step"] or 0) > (row["resumed_from_step"] or 0)


def checkpoint_s(ledger: Ledger, run_id: int) -> float:
    """Seconds that the run's slowest checkpoint took; 0 before the first."""
    slowest = Timing.select(fn.MAX(Timing.value)).where(
        Timing.run == run_id, Timing.name == "checkpoint_s"
    )
    return float(ledger.values(slowest)[0] or 0.0)


def _end_worker(ledger: Ledger, worker_id: int) -> None:
    ledger.write(
        Lease.update(released_at=now()).where(
            Lease.worker == worker_id, Lease.released_at.is_null()
        )
    )
    ledger.write(Worker.update(ended_at=now()).where(Worker.id == worker_id))


def _wait_for_data(ledger: Ledger, attempt: LiveAttempt, missing: str, not_before: float) -> None:
    ledger.write(
        Attempt.update(stop_why=WAITS_FOR_DATA).where(
            Attempt.id == attempt.id, Attempt.stop_why.is_null()
        )
    )
    data_waits.wait_for(ledger, missing, not_before)


def _numbers(result: Result) -> dict[str, Any]:
    """The columns of a run in which its result is kept."""
    return {
        "metrics": dict(result.metrics),
        "flags": list(result.flags),
        "state_sha256": result.state_sha256,
        "error": None,
    }


def _keep_files(ledger: Ledger, attempt: LiveAttempt, result: Result) -> None:
    ledger.insert_all(
        Artifact,
        (
            {
                "run": attempt.run_id,
                "attempt": attempt.number,
                "name": artifact["name"],
                "num_bytes": artifact["bytes"],
                "sha256": artifact["sha256"],
            }
            for artifact in result.artifacts
        ),
        replace=True,
    )


def _fail_dependents(ledger: Ledger, run_id: int) -> None:
    """What needs a failed run fails too, and says why."""
    waiting = (RunState.QUEUED, RunState.HELD)
    dependents = ledger.values(
        Dependency.select(Dependency.run)
        .join(Run, on=Run.id == Dependency.run)
        .where(Dependency.needs_run == run_id, Run.state.in_(waiting))
    )
    for dependent in dependents:
        ledger.write(
            Run.update(
                state=RunState.FAILED, error=f"it needs r{run_id}, which failed", ended_at=now()
            ).where(Run.id == dependent)
        )
        _fail_dependents(ledger, dependent)
