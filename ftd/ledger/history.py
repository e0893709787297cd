"""What runs like those of a plan took before: an estimate of the device time that it needs."""

from __future__ import annotations

from dataclasses import dataclass

from peewee import fn

from ftd.ledger.db import Ledger
from ftd.ledger.models import Attempt, JSONText, Run
from ftd.plan import Plan
from ftd.states import RunState

MAX_RUNS = 2000  # the ones that ended last


@dataclass(frozen=True)
class Estimate:
    """Device seconds of `num_runs` runs that are not done yet; None when nothing is known.

    It rests on `num_known` runs of the same job that are done, and for `num_alike` of the runs on
    those that have the same parameters (other seeds).
    """

    device_s: float | None
    num_runs: int
    num_alike: int
    num_known: int


def estimate(ledger: Ledger, plan: Plan, known: dict[str, tuple[int, RunState]]) -> Estimate:
    """Estimate the runs of `plan` that are not done: the mean of runs with the same parameters,
    else of the job's."""
    todo = [
        run for run in plan.runs if known.get(run.key, (0, RunState.QUEUED))[1] != RunState.DONE
    ]
    device_kind = plan.runs[0].device_kind
    took = _seconds(ledger, plan.job, device_kind)
    num_known = sum(number for number, _ in took.values())
    if not num_known:
        return Estimate(None, len(todo), 0, 0)
    overall = sum(seconds for _, seconds in took.values()) / num_known
    total, num_alike = 0.0, 0
    encoded: dict[int, str] = {}  # by the identity of params, which runs of a cell share
    for run in todo:
        key = encoded.get(id(run.params)) or _encoded(dict(run.params))
        encoded[id(run.params)] = key
        alike = took.get(key)
        num_alike += alike is not None
        total += alike[1] / alike[0] if alike else overall
    return Estimate(total, len(todo), num_alike, num_known)


def _seconds(ledger: Ledger, job: str, device_kind: str) -> dict[str, tuple[int, float]]:
    """Parameters -> number of done runs, device seconds of all of them."""
    newest = (
        Run.select(Run.id)
        .where(Run.job == job, Run.device_kind == device_kind, Run.state == RunState.DONE)
        .order_by(Run.ended_at.desc())
        .limit(MAX_RUNS)
    )
    query = (
        Run.select(
            Run.params,
            fn.COUNT(Run.id.distinct()),
            fn.SUM(fn.COALESCE(Attempt.ended_at, Attempt.started_at) - Attempt.started_at),
        )
        .join(Attempt, on=Attempt.run == Run.id)
        .where(Run.id.in_(newest))
        .group_by(Run.params)
        .tuples()
    )
    return {_encoded(params): (number, s) for params, number, s in query.execute(ledger.db)}


def _encoded(params: object) -> str:
    return JSONText().db_value(params) or ""
