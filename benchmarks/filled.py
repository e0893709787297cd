"""A home whose ledger already holds many runs, as after months of use.

Experiments, runs and memberships are written as ``ftd enqueue`` writes them; what executing them
would have added (attempts, leases, metrics, timings, artifacts) is put into the tables in bulk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peewee import fn

from ftd.layout import Home
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.enqueue import write_plan
from ftd.ledger.models import Artifact, Attempt, Lease, Membership, Metric, Run, Timing, Worker
from ftd.ledger.wishes import admit
from ftd.planning.plan import Place, Plan, PlannedRun
from ftd.planning.resolve import Factors
from ftd.seeds import streams
from ftd.states import ENDED, Outcome, RunState, Wish
from jobs.finetune import FinetuneParams

REPLICATES = 5
METRICS = ("train/loss", "train/top1", "val/top1", "val/balanced_accuracy", "val/nll")
ARTIFACTS = ("predictions.csv", "weights.safetensors")
EPOCHS, STEPS_PER_EPOCH = 4, 15
FIRST_AT, RUN_S = 1_700_000_000, 60  # when the first run started; each took a minute

# of the runs of an experiment; the rest is done
MIXED = {
    RunState.FAILED: 0.01,
    RunState.CANCELLED: 0.01,
    RunState.HELD: 0.01,
    RunState.QUEUED: 0.05,
}
ALL_DONE: Mapping[RunState, float] = {}

PARAMS = FinetuneParams.model_validate(
    {
        "model": {"name": "efficientnet_lite0"},
        "target": {"dataset": "elpv", "decode_size": 128, "per_class": 40},
        "train": {"epochs": EPOCHS},
    }
).model_dump(mode="json")


def fill(root: Path, num_runs: int, num_experiments: int, shares: Mapping[RunState, float]) -> Home:
    """Make a home below `root` with `num_runs` runs in `num_experiments`, in states by `shares`."""
    home = Home(root)
    ledger = open_ledger(home, create=True)
    try:
        for number in range(num_experiments):
            with ledger.transaction():
                ids = _enqueue(ledger, number, num_runs // num_experiments)
                _execute(ledger, ids, shares)
    finally:
        ledger.close()
    return home


def _enqueue(ledger: Ledger, number: int, num_runs: int) -> Sequence[int]:
    plan = _plan(f"study-{number}", num_runs)
    written = write_plan(
        ledger,
        plan,
        spec_text="experiment: ...\n" * 20,
        base="/",
        owner="ann",
        priority=0,
        announce=lambda experiment: admit(ledger, experiment),
    )
    return written.runs


def _plan(name: str, num_runs: int) -> Plan:
    base = PlannedRun(
        key="",
        job="finetune",
        job_version=1,
        params=PARAMS,
        seeds={},
        numerics="exact",
        threads=1,
        device_kind="cpu",
        inputs={"target": {"kind": "package", "where": "elpv-dataset", "fingerprint": "x==1"}},
        versions={"torch": "2.7", "torchvision": "0.22", "numpy": "2.0"},
        time_limit_s=None,
    )
    runs, places = [], []
    for number in range(num_runs):
        cell, replicate = divmod(number, REPLICATES)
        key = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()
        runs.append(replace(base, key=key, seeds=streams(1, replicate)))
        factors: Factors = {"layers": f"F(1-{cell % 16 + 1})R(18)", "target.per_class": cell // 16}
        places.append(Place(cell, replicate, factors, key))
    return Plan(
        name=name,
        job="finetune",
        runs=tuple(runs),
        places=tuple(places),
        cells=(),
        replicates=REPLICATES,
        priority=0,
        primary_metric="test/auroc",
        spec_digest=hashlib.sha256(name.encode()).hexdigest(),
    )


def _execute(ledger: Ledger, ids: Sequence[int], shares: Mapping[RunState, float]) -> None:
    """Let the runs stand where `shares` says, with the rows that executing them leaves."""
    runs = _by_state(ids, shares)
    for state, chosen in runs.items():
        ledger.write(Run.update(**_fields(state)).where(Run.id.in_(chosen)))
    held = Membership.run.in_(runs.get(RunState.HELD, []))
    ledger.write(Membership.update(wish=Wish.HOLD).where(held))
    first = (ledger.values(Worker.select(fn.MAX(Worker.id)))[0] or 0) + 1
    for state, outcome in (
        (RunState.DONE, Outcome.COMPLETED),
        (RunState.FAILED, Outcome.FAILED),
    ):
        tries = list(enumerate(runs.get(state, []), start=first))
        first += len(tries)
        ledger.insert_all(Worker, (_worker(worker, run) for worker, run in tries))
        ledger.insert_all(Lease, (_lease(worker, run) for worker, run in tries))
        ledger.insert_all(Attempt, (_attempt(worker, run, outcome) for worker, run in tries))
    done = runs[RunState.DONE]
    ledger.insert_all(Metric, (row for run in done for row in _metrics(run)))
    ledger.insert_all(Timing, (_timing(run) for run in done))
    ledger.insert_all(Artifact, (_artifact(run, name) for run in done for name in ARTIFACTS))


def _by_state(
    ids: Sequence[int], shares: Mapping[RunState, float]
) -> dict[RunState, Sequence[int]]:
    """The first runs of an experiment are done, the last ones stand elsewhere."""
    runs: dict[RunState, Sequence[int]] = {}
    end = len(ids)
    for state, share in shares.items():
        start = end - round(len(ids) * share)
        runs[state] = ids[start:end]
        end = start
    return {RunState.DONE: ids[:end], **runs}


def _fields(state: RunState) -> dict[str, Any]:
    """What a run's own row says in `state`."""
    fields: dict[str, Any] = {"state": state}
    if state in ENDED:
        fields["ended_at"] = _started_at(Run.id) + RUN_S
    if state == RunState.FAILED:
        fields["error"] = "RuntimeError: failed at step 3"
    if state == RunState.DONE:
        fields["metrics"] = {f"test/{name}": 0.87 for name in ("top1", "auroc", "nll")}
        fields["state_sha256"] = "0" * 64
        fields["flags"] = []
    return fields


def _started_at(run: Any) -> Any:
    """When a run (its id, or the column of ids) started: one after the other."""
    return FIRST_AT + run * RUN_S


def _worker(worker: int, run: int) -> dict[str, Any]:
    return {
        "id": worker,
        "directory": f"runs/r{run}/attempts/1",
        "boot_id": "0" * 36,
        "pid": worker,
        "start_ticks": worker,
        "started_at": _started_at(run),
        "ended_at": _started_at(run) + RUN_S,
    }


def _lease(worker: int, run: int) -> dict[str, Any]:
    started_at = _started_at(run)
    return {
        "device": "cpu:0",
        "worker": worker,
        "taken_at": started_at,
        "released_at": started_at + RUN_S,
    }


def _attempt(worker: int, run: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "run": run,
        "number": 1,
        "worker": worker,
        "outcome": outcome,
        "started_at": _started_at(run),
        "ended_at": _started_at(run) + RUN_S,
        "step": EPOCHS * STEPS_PER_EPOCH,
        "num_steps": EPOCHS * STEPS_PER_EPOCH,
        "progress": {"epoch": EPOCHS, "images_per_s": 50.1},
        "events_offset": 9000,
    }


def _metrics(run: int) -> Iterator[dict[str, Any]]:
    for epoch in range(1, EPOCHS + 1):
        for metric in METRICS:
            split, _, name = metric.partition("/")
            yield {
                "run": run,
                "name": name,
                "split": split,
                "step": epoch * STEPS_PER_EPOCH,
                "attempt": 1,
                "value": 0.5,
            }


def _timing(run: int) -> dict[str, Any]:
    return {"run": run, "attempt": 1, "name": "train/images_per_s", "step": 15, "value": 50.1}


def _artifact(run: int, name: str) -> dict[str, Any]:
    return {"run": run, "attempt": 1, "name": name, "num_bytes": 1000, "sha256": "0" * 64}
