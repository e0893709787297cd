"""A home whose ledger already holds many runs, as after months of use.

Experiments, runs and memberships are written as ``ftd enqueue`` writes them; what executing them
would have added (attempts, leases, metrics, timings, artifacts) is put into the tables in bulk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftd.clock import now
from ftd.layout import Home
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.enqueue import write_plan
from ftd.ledger.models import Artifact, Attempt, Lease, Membership, Metric, Run, Timing, Worker
from ftd.ledger.wishes import admit
from ftd.plan import Place, Plan, PlannedRun
from ftd.seeds import streams
from ftd.states import Outcome, RunState, Wish
from jobs.finetune import FinetuneParams

REPLICATES = 5
METRICS = ("train/loss", "train/top1", "val/top1", "val/balanced_accuracy", "val/nll")
EPOCHS = 4

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
        ledger.db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        ledger.close()
    return home


def _enqueue(ledger: Ledger, number: int, num_runs: int) -> tuple[int, ...]:
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
        factors = {"layers": f"F(1-{cell % 16 + 1})R(18)", "target.per_class": cell // 16}
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


def _execute(ledger: Ledger, ids: tuple[int, ...], shares: Mapping[RunState, float]) -> None:
    """Let the runs stand where `shares` says, with the rows that executing them leaves."""
    states = _states(ids, shares)
    for state in RunState:
        chosen = [run for run, stands in states.items() if stands == state]
        ledger.write(Run.update(**_fields(state)).where(Run.id.in_(chosen)))
        if state == RunState.HELD:
            ledger.write(Membership.update(wish=Wish.HOLD).where(Membership.run.in_(chosen)))
    executed = [
        run for run, state in states.items() if state in (RunState.DONE, RunState.FAILED)
    ]
    first = ledger.values(Worker.select(Worker.id).order_by(Worker.id.desc()).limit(1))
    workers = range((first or [0])[0] + 1, (first or [0])[0] + 1 + len(executed))
    times = {"started_at": now() - 60, "ended_at": now()}
    pairs = list(zip(executed, workers, strict=True))
    ledger.insert_all(
        Worker,
        ({"id": w, "directory": f"runs/r{run}/attempts/1", "boot_id": "b", "pid": w,
          "start_ticks": w, **times} for run, w in pairs),
    )  # fmt: skip
    ledger.insert_all(
        Lease,
        ({"device": "cpu:0", "worker": w, "taken_at": now() - 60, "released_at": now()}
         for _, w in pairs),
    )  # fmt: skip
    ledger.insert_all(
        Attempt,
        ({"run": run, "number": 1, "worker": w, "outcome": _outcome(states[run]), "step": 60,
          "num_steps": 60, "events_offset": 9000, "progress": {"epoch": 3, "images_per_s": 50.1}, **times}
         for run, w in pairs),
    )  # fmt: skip
    done = [run for run in executed if states[run] == RunState.DONE]
    ledger.insert_all(Metric, _metrics(done))
    ledger.insert_all(
        Timing,
        ({"run": run, "attempt": 1, "name": "train/images_per_s", "step": 60, "value": 50.1}
         for run in done),
    )  # fmt: skip
    ledger.insert_all(
        Artifact,
        ({"run": run, "attempt": 1, "name": name, "num_bytes": 1000, "sha256": "0" * 64}
         for run in done for name in ("predictions.csv", "weights.safetensors")),
    )  # fmt: skip


def _states(ids: tuple[int, ...], shares: Mapping[RunState, float]) -> dict[int, RunState]:
    """The first runs of an experiment are done, the last ones wait."""
    states = dict.fromkeys(ids, RunState.DONE)
    end = len(ids)
    for state, share in reversed(shares.items()):
        start = end - round(len(ids) * share)
        states.update(dict.fromkeys(ids[start:end], state))
        end = start
    return states


def _fields(state: RunState) -> dict[str, Any]:
    fields: dict[str, Any] = {"state": state}
    if state in (RunState.DONE, RunState.FAILED, RunState.CANCELLED):
        fields["ended_at"] = now()
    if state == RunState.FAILED:
        fields["error"] = "RuntimeError: failed at step 3"
    if state == RunState.DONE:
        fields["metrics"] = {f"test/{name}": 0.87 for name in ("top1", "auroc", "nll")}
        fields["state_sha256"] = "0" * 64
        fields["flags"] = []
    return fields


def _outcome(state: RunState) -> Outcome:
    return Outcome.COMPLETED if state == RunState.DONE else Outcome.FAILED


def _metrics(runs: list[int]) -> Iterator[dict[str, Any]]:
    for run in runs:
        for epoch in range(1, EPOCHS + 1):
            for metric in METRICS:
                split, _, name = metric.partition("/")
                yield {
                    "run": run,
                    "name": name,
                    "split": split,
                    "step": epoch * 15,
                    "attempt": 1,
                    "value": 0.5,
                }
