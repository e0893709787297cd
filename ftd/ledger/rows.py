"""What people and scripts look at: frozen rows, never tables.

``as_json`` of these rows is the contract for scripts; their field names are stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftd.states import RunState


@dataclass(frozen=True)
class RunRow:
    """A run as lists and summaries need it.

    `factors`, `replicate` and `primary_metric` are those of the experiment asked about (else of the
    first that has it); `metrics` are the final ones, empty before the run is done; `cost_actual_s`
    and `cost_alone_s` are device seconds (see :class:`ftd.ledger.costs.Cost`); `sources_at_chance`
    are runs it starts from that learned nothing.
    """

    id: int
    experiments: tuple[str, ...]
    job: str
    state: RunState
    factors: Mapping[str, Any]
    cell: int
    replicate: int
    attempts: int
    cost_actual_s: float
    cost_alone_s: float
    metrics: Mapping[str, float]
    primary_metric: str
    flags: tuple[str, ...]
    state_sha256: str | None
    approximate: str | None
    error: str | None
    created_at: float
    ended_at: float | None
    sources_at_chance: tuple[int, ...] = ()

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
            "cost_actual_s": round(self.cost_actual_s, 3),
            "cost_alone_s": round(self.cost_alone_s, 3),
            "flags": list(self.flags),
            "sources_at_chance": [f"r{run}" for run in self.sources_at_chance],
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
    num_places: int  # cells x replicates x candidates
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
    trouble: str | None  # what keeps it from going on
    sources_at_chance: tuple[int, ...] = ()

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
            "trouble": self.trouble,
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
    needs: Mapping[int, RunState]  # runs that are not done yet
    held_by: str | None
    held_why: str | None
    error: str | None  # what went wrong when it was last tried
    sources_at_chance: tuple[int, ...] = ()


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
