"""What goes on in a home, at one glance: devices, running runs, the queue, recent ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftd.ledger.resumed import Resumed
from ftd.ledger.rows import DeviceRow, ExperimentRow, LiveRow, RunRow, WaitingRow
from ftd.states import RunState
from ftd.views import progress
from ftd.views.phrases import at_chance, count, duration, factors, moment, number, run_ids, size
from ftd.views.table import Table, table


@dataclass(frozen=True)
class Snapshot:
    """Everything ``ftd status`` shows, read in one moment (`at`, UTC epoch seconds)."""

    home: Path
    at: float
    daemon: Mapping[str, Any] | None
    devices: Sequence[DeviceRow]
    running: Sequence[LiveRow]
    waiting: Sequence[tuple[WaitingRow, str]]  # with the reason each waits
    counts: Mapping[str, int]
    experiments: Sequence[ExperimentRow]
    recent: Sequence[RunRow]
    resumed: Resumed
    short_of_space: str | None

    def as_json(self) -> dict[str, Any]:
        """The object of ``ftd status --json``."""
        return {
            "daemon": None if self.daemon is None else dict(self.daemon),
            "devices": [row.as_json() for row in self.devices],
            "running": [row.as_json() for row in self.running],
            "queued": [_waiting_json(row, why) for row, why in self.waiting],
            "counts": dict(self.counts),
            "short_of_space": self.short_of_space,
            "experiments": [_experiment_json(row) for row in self.experiments],
            "recent": [row.as_json() for row in self.recent],
            "resumed": self.resumed.as_json(),
        }


def tables(seen: Snapshot) -> list[Table]:
    """The snapshot as tables, the most urgent first."""
    return [
        _head(seen),
        _devices(seen),
        _running(seen.running),
        _waiting(seen),
        _experiments(seen),
        _recent(seen),
    ]


def work(running: Sequence[LiveRow], counts: Mapping[RunState, int]) -> list[Table]:
    """How far some runs are: their states, and what executes now."""
    return [table("", (), (), notes=(states(counts),)), _running(running)]


def _head(seen: Snapshot) -> Table:
    if seen.daemon is None:
        daemon = "no daemon is running: start one with 'ftd daemon'"
    else:
        since = seen.daemon.get("since")
        age = f", up {duration(seen.at - since)}" if isinstance(since, int | float) else ""
        daemon = f"daemon is running (pid {seen.daemon.get('pid')}{age})"
    counted = ", ".join(f"{seen.counts.get(state, 0):,} {state}" for state in RunState)
    notes = [f"{seen.home}: {daemon}", f"runs: {counted}"]
    if seen.short_of_space is not None:
        notes.append(f"nothing starts: {seen.short_of_space}")
        notes.append(
            f"{seen.home}/store is a cache: while nothing runs, any folder in it may be deleted"
        )
    if seen.resumed.runs:
        again = f"{count(seen.resumed.steps_redone, 'step')} redone"
        notes.append(f"resumed after the reboot: {run_ids(seen.resumed.runs)}, {again}")
    return table("", (), (), notes=notes)


def _devices(seen: Snapshot) -> Table:
    return table(
        "devices",
        ("device", "name", ">memory", "state", "used by"),
        (
            (
                row.id,
                row.name,
                size(row.memory_bytes),
                row.state,
                f"r{row.run_id}" if row.run_id else row.detail,
            )
            for row in seen.devices
        ),
    )


def _running(running: Sequence[LiveRow]) -> Table:
    return table(
        "running",
        ("run", "experiment", "cell", "device", "progress", ">step", ">left", "reports"),
        (
            (
                f"r{row.run_id}",
                row.experiment,
                factors(row.factors, row.replicate),
                row.device,
                progress.bar(row.step, row.num_steps),
                progress.steps(row),
                progress.time_left(row),
                progress.reports(row),
            )
            for row in running
        ),
    )


def _waiting(seen: Snapshot) -> Table:
    total = seen.counts.get(RunState.QUEUED, 0) + seen.counts.get(RunState.HELD, 0)
    more = total - len(seen.waiting)
    return table(
        "waiting",
        ("run", "experiment", "cell", "state", ">priority", "why it waits"),
        (
            (
                f"r{row.run_id}",
                row.experiment,
                factors(row.factors, row.replicate),
                row.state,
                str(row.priority),
                "; ".join([why, *at_chance(row.sources_at_chance)]),
            )
            for row, why in seen.waiting
        ),
        notes=(f"... and {more:,} more",) if more > 0 else (),
    )


def _experiments(seen: Snapshot) -> Table:
    return table(
        "experiments",
        ("id", "name", ">revision", "owner", ">places", "runs", "submitted"),
        (
            (
                f"e{row.id}",
                row.name,
                str(row.revision),
                row.owner,
                f"{row.num_places:,}",
                "many; see 'ftd show'" if row.counts is None else states(row.counts),
                moment(row.submitted_at),
            )
            for row in seen.experiments
        ),
        empty="no experiments yet: 'ftd enqueue SPEC' adds one",
    )


def _recent(seen: Snapshot) -> Table:
    return table(
        "ended last",
        ("run", "experiment", "cell", "state", "ago", "result"),
        (
            (
                f"r{row.id}",
                ", ".join(row.experiments),
                factors(row.factors, row.replicate),
                row.state,
                duration(seen.at - row.ended_at) if row.ended_at is not None else "-",
                result(row),
            )
            for row in seen.recent
        ),
    )


def states(counts: Mapping[RunState, int] | Mapping[str, int]) -> str:
    """``3 running, 9 done``: the states that occur, in their usual order."""
    by_name: dict[str, int] = {str(state): number for state, number in counts.items()}
    return ", ".join(f"{by_name[state]:,} {state}" for state in RunState if by_name.get(state))


def result(row: RunRow) -> str:
    """What came out of a run in a few words: its error, or its metrics and flags.

    The metrics are the primary one first and those of the test images; any, when it has neither.
    """
    if row.error:
        return row.error
    tested = [name for name in row.metrics if name.startswith("test/")]
    chosen = [name for name in dict.fromkeys((row.primary_metric, *tested)) if name in row.metrics]
    parts = [f"{name} {number(row.metrics[name])}" for name in (chosen or list(row.metrics))[:3]]
    approximate = ["approximate"] if row.approximate else []
    return ", ".join([*parts, *row.flags, *approximate, *at_chance(row.sources_at_chance)])


def _waiting_json(row: WaitingRow, why: str) -> dict[str, Any]:
    return {
        "id": f"r{row.run_id}",
        "experiment": row.experiment,
        "factors": dict(row.factors),
        "replicate": row.replicate,
        "state": str(row.state),
        "priority": row.priority,
        "reason": why,
    }


def _experiment_json(row: ExperimentRow) -> dict[str, Any]:
    return {
        "id": f"e{row.id}",
        "name": row.name,
        "revision": row.revision,
        "owner": row.owner,
        "job": row.job,
        "primary_metric": row.primary_metric,
        "submitted_at": row.submitted_at,
        "admitted": row.admitted,
        "places": row.num_places,
        "counts": None if row.counts is None else dict(row.counts),
    }
