"""All that is known of one run or one experiment."""

from __future__ import annotations

from typing import Any

from ftd.ledger.db import Ledger
from ftd.ledger.models import (
    Artifact,
    Attempt,
    Event,
    Experiment,
    Lease,
    Membership,
    Metric,
    Run,
    Timing,
    Worker,
)
from ftd.ledger.reads import experiments, runs
from ftd.ledger.resumed import steps_redone
from ftd.ledger.rows import MetricRow


def metric_rows(ledger: Ledger, run_id: int) -> list[MetricRow]:
    """Everything a run measured, by name and step."""
    query = (
        Metric.select().where(Metric.run == run_id).order_by(Metric.split, Metric.name, Metric.step)
    )
    return [
        MetricRow(f"{row['split']}/{row['name']}", row["step"], row["value"], row["attempt"])
        for row in ledger.rows(query)
    ]


def timing_rows(ledger: Ledger, run_id: int) -> list[MetricRow]:
    """Rates, durations and sizes that a run recorded, by name, attempt and step."""
    query = (
        Timing.select()
        .where(Timing.run == run_id)
        .order_by(Timing.name, Timing.attempt, Timing.step, Timing.value)
    )
    return [
        MetricRow(row["name"], row["step"], row["value"], row["attempt"])
        for row in ledger.rows(query)
    ]


def run_details(ledger: Ledger, run_id: int) -> dict[str, Any]:
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
                "candidate": member["candidate"],
                "factors": member["factors"],
                "tuned": member["tuned"] or {},
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


def experiment_details(ledger: Ledger, experiment: int) -> dict[str, Any]:
    """All that is known of one experiment, as ``ftd show EXPERIMENT --json`` prints it."""
    row = ledger.row(Experiment.select().where(Experiment.id == experiment))
    assert row is not None, "callers resolve the id first"
    (base,) = experiments(ledger, only=experiment)
    revisions = Experiment.select(Experiment.id).where(
        Experiment.owner == base.owner, Experiment.name == base.name
    )
    members = (
        Membership.select(Membership.run).where(Membership.experiment == experiment).distinct()
    )
    history = Event.select().where(Event.experiment == experiment).order_by(Event.at, Event.id)
    return {
        "id": f"e{base.id}",
        "name": base.name,
        "revision": base.revision,
        "revisions": [f"e{number}" for number in ledger.values(revisions)],
        "owner": base.owner,
        "job": base.job,
        "primary_metric": base.primary_metric,
        "submitted_at": base.submitted_at,
        "admitted": base.admitted,
        "counts": dict(base.counts or {}),
        "runs": [f"r{number}" for number in sorted(ledger.values(members))],
        "base": row["base"],
        "spec": row["spec_text"],
        "request": row["request"],
        "history": [
            {"at": event["at"], "kind": event["kind"], "who": event["who"], "data": event["data"]}
            for event in ledger.rows(history)
        ],
    }
