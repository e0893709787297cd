"""What runs like those of a plan took before: an estimate of the time and room that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peewee import ModelSelect, fn

from ftd.ledger.db import Ledger
from ftd.ledger.models import Artifact, Attempt, JSONText, Run
from ftd.planning.plan import Plan
from ftd.states import RunState

MAX_RUNS = 2000  # the ones that ended last


@dataclass(frozen=True)
class Estimate:
    """What `num_runs` runs that are not done yet need; None when nothing is known.

    `device_s` in seconds of a device, `disk_bytes` of files they keep.  It rests on `num_known`
    runs of the same job that are done, and for `num_alike` of the runs on those that have the same
    parameters (other seeds).
    """

    device_s: float | None
    disk_bytes: float | None
    num_runs: int
    num_alike: int
    num_known: int


@dataclass(frozen=True)
class _Took:
    """What runs that are done took together."""

    num_runs: int
    device_s: float
    disk_bytes: float


def estimate(ledger: Ledger, plan: Plan, known: dict[str, tuple[int, RunState]]) -> Estimate:
    """Estimate the runs of `plan` that are not done: the mean of runs with the same parameters,
    else of the job's."""
    todo = [
        run for run in plan.runs if known.get(run.key, (0, RunState.QUEUED))[1] != RunState.DONE
    ]
    took = _took(ledger, plan.job, plan.runs[0].device_kind)
    num_known = sum(some.num_runs for some in took.values())
    if not num_known:
        return Estimate(None, None, len(todo), 0, 0)
    of_job = _Took(
        num_known,
        sum(some.device_s for some in took.values()),
        sum(some.disk_bytes for some in took.values()),
    )
    device_s = disk_bytes = 0.0
    num_alike = 0
    encoded: dict[int, str] = {}  # by the identity of params, which runs of a cell share
    for run in todo:
        key = encoded.get(id(run.params)) or _encoded(dict(run.params))
        encoded[id(run.params)] = key
        num_alike += key in took
        like = took.get(key, of_job)
        device_s += like.device_s / like.num_runs
        disk_bytes += like.disk_bytes / like.num_runs
    return Estimate(device_s, disk_bytes, len(todo), num_alike, num_known)


def _took(ledger: Ledger, job: str, device_kind: str) -> dict[str, _Took]:
    """Parameters -> what the runs with them took that were done last."""
    newest = (
        Run.select(Run.id)
        .where(Run.job == job, Run.device_kind == device_kind, Run.state == RunState.DONE)
        .order_by(Run.ended_at.desc())
        .limit(MAX_RUNS)
    )
    seconds = fn.SUM(fn.COALESCE(Attempt.ended_at, Attempt.started_at) - Attempt.started_at)
    tried = Run.select(Run.params, fn.COUNT(Run.id.distinct()), seconds).join(Attempt)
    kept = Run.select(Run.params, fn.SUM(Artifact.num_bytes)).join(Artifact)
    disk_bytes = dict(_by_params(ledger, kept, newest))
    return {
        params: _Took(num_runs, device_s, disk_bytes.get(params, 0))
        for params, num_runs, device_s in _by_params(ledger, tried, newest)
    }


def _by_params(
    ledger: Ledger, query: ModelSelect[Run], runs: ModelSelect[Run]
) -> list[tuple[Any, ...]]:
    grouped = query.where(Run.id.in_(runs)).group_by(Run.params).tuples()
    return [(_encoded(params), *rest) for params, *rest in grouped.execute(ledger.db)]


def _encoded(params: object) -> str:
    return JSONText().db_value(params) or ""
