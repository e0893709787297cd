"""Writing a plan into the ledger: experiment, runs and memberships in one transaction.

Runs are found again by their key, whoever asked for them first; an experiment by owner, name and
the digest of its spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import fn

from ftd import faults
from ftd.clock import now
from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Experiment, Membership, Run
from ftd.ledger.producers import write_dependencies
from ftd.ledger.wishes import requeue, settle
from ftd.planning.plan import Plan, PlannedRun
from ftd.states import RunState, Wish


@dataclass(frozen=True)
class Enqueued:
    """What came of an enqueue: `runs` distinct, in plan order; `new` + `shared` is their number."""

    experiment: str
    id: int
    revision: int
    known: bool  # the same spec was enqueued before
    runs: tuple[int, ...]
    new: int
    shared: int
    done: int
    requeued: int


def write_plan(
    ledger: Ledger,
    plan: Plan,
    *,
    spec_text: str,
    base: str,
    owner: str,
    priority: int,
    announce: Callable[[int], None],
    request: Mapping[str, Any] | None = None,
) -> Enqueued:
    """Record `plan` and announce it; `announce(experiment id)` puts the message in the queue.

    `request` is what besides `spec_text` and `base` is needed to plan it again (JSON values).

    When this returns, it is committed: nothing of it can be lost.
    """
    with ledger.transaction():
        found = ledger.row(
            Experiment.select().where(
                Experiment.owner == owner,
                Experiment.name == plan.name,
                Experiment.spec_digest == plan.spec_digest,
            )
        )
        if found is None:
            revision = _next_revision(ledger, owner, plan.name)
            experiment = ledger.insert(
                Experiment,
                name=plan.name,
                owner=owner,
                revision=revision,
                job=plan.job,
                spec_text=spec_text,
                spec_digest=plan.spec_digest,
                base=base,
                primary_metric=plan.primary_metric,
                outline=plan.outline.as_json(),
                request=None if request is None else dict(request),
                submitted_at=now(),
            )
        else:
            experiment, revision = found["id"], found["revision"]

        known = _states(ledger, [run.key for run in plan.runs])
        ledger.insert_all(Run, (_row(run) for run in plan.runs if run.key not in known))
        stored = _states(ledger, [run.key for run in plan.runs])
        new = [run for run in plan.runs if run.key not in known]
        write_dependencies(ledger, new, {key: run_id for key, (run_id, _) in stored.items()})
        _write_memberships(ledger, experiment, plan, stored, owner=owner, priority=priority)

        ended = (RunState.FAILED, RunState.CANCELLED, RunState.HELD)
        again = [run_id for run_id, state in known.values() if state in ended]
        requeue(ledger, again)
        if known:
            _extend_limits(ledger, plan, [run_id for run_id, _ in known.values()])
        if priority or known:
            settle(ledger, [run_id for run_id, _ in stored.values()])
        announce(experiment)
        faults.point("enqueue.before_commit")
    faults.point("enqueue.after_commit")
    return Enqueued(
        experiment=plan.name,
        id=experiment,
        revision=revision,
        known=found is not None,
        runs=tuple(stored[run.key][0] for run in plan.runs),
        new=len(plan.runs) - len(known),
        shared=len(known),
        done=sum(state == RunState.DONE for _, state in known.values()),
        requeued=len(again),
    )


def known_runs(ledger: Ledger, plan: Plan) -> dict[str, tuple[int, RunState]]:
    """Which of a plan's runs the ledger already has: key -> (run id, state)."""
    return _states(ledger, [run.key for run in plan.runs])


def _states(ledger: Ledger, keys: Sequence[str]) -> dict[str, tuple[int, RunState]]:
    found = {}
    for some in chunks(keys):
        for row in ledger.rows(Run.select(Run.id, Run.key, Run.state).where(Run.key.in_(some))):
            found[row["key"]] = (row["id"], RunState(row["state"]))
    return found


def _next_revision(ledger: Ledger, owner: str, name: str) -> int:
    newest = Experiment.select(fn.MAX(Experiment.revision)).where(
        Experiment.owner == owner, Experiment.name == name
    )
    return (ledger.values(newest)[0] or 0) + 1


def _extend_limits(ledger: Ledger, plan: Plan, runs: Sequence[int]) -> None:
    """Of several experiments' time limits for a run, the longest counts.  (A plan has one.)"""
    limit_s = plan.runs[0].time_limit_s
    shorter = Run.time_limit_s.is_null(False) if limit_s is None else Run.time_limit_s < limit_s
    for ids in chunks(runs):
        ledger.write(Run.update(time_limit_s=limit_s).where(Run.id.in_(ids), shorter))


def _row(run: PlannedRun) -> dict[str, object]:
    return {
        "key": run.key,
        "job": run.job,
        "job_version": run.job_version,
        "params": run.params,
        "seeds": run.seeds,
        "numerics": run.numerics,
        "threads": run.threads,
        "device_kind": run.device_kind,
        "inputs": run.inputs,
        "versions": run.versions,
        "time_limit_s": run.time_limit_s,
        "state": RunState.QUEUED,
        "created_at": now(),
        "num_failures": 0,
        "priority": 0,
    }


def _write_memberships(
    ledger: Ledger,
    experiment: int,
    plan: Plan,
    stored: dict[str, tuple[int, RunState]],
    *,
    owner: str,
    priority: int,
) -> None:
    """One membership per place; a known experiment's places want to run again."""
    wanted = {"wish": Wish.RUN, "wished_by": owner, "wished_at": now(), "wished_why": "enqueue"}
    have = set(
        Membership.select(Membership.cell, Membership.replicate, Membership.candidate)
        .where(Membership.experiment == experiment)
        .tuples()
        .execute(ledger.db)
    )
    ledger.write(
        Membership.update(priority=priority, **wanted).where(Membership.experiment == experiment)
    )
    ledger.insert_all(
        Membership,
        (
            {
                "experiment": experiment,
                "run": stored[place.run_key][0],
                "cell": place.cell,
                "replicate": place.replicate,
                "candidate": place.candidate,
                "factors": place.factors,
                "tuned": place.tuned or None,
                "priority": priority,
                **wanted,
            }
            for place in plan.places
            if (place.cell, place.replicate, place.candidate) not in have
        ),
    )
