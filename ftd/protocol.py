"""What daemon and worker say to each other: the files of an attempt's directory.

order.json       sealed by the daemon before the worker starts: everything it needs
worker.json      sealed by the worker once it holds the run's lock: who it is
stop.json        sealed by the daemon: checkpoint and leave, and why
revoked.json     sealed by the daemon, holding the run's lock: this attempt must never start
events.jsonl     stream: metrics, progress, notes
heartbeat        its mtime says the worker's process turns over (evidence, never a verdict)
log.txt          standard output and error
checkpoints/N/   sealed folders
workspace/       what a job's program saves in its own way; the next attempt gets a copy
artifacts/       files the job keeps
result.json      sealed last by the worker; if it exists, it decides
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from ftd.printable import is_utf8
from ftd.states import Outcome

ORDER = "order.json"
WORKER = "worker.json"
STOP = "stop.json"
REVOKED = "revoked.json"
EVENTS = "events.jsonl"
HEARTBEAT = "heartbeat"
LOG = "log.txt"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
ARTIFACTS = "artifacts"
WORKSPACE = "workspace"

MARK = "FTD_ATTEMPT"  # the attempt's directory, in the environment of whatever a worker starts

WAITS_FOR_DATA = "data"  # why an attempt stopped whose input is not there

# Timings of an attempt, in seconds: what it spent on results that runs share, and what computing
# all of them would have taken; each a sum that grows.
SHARED_ACTUAL = "store/actual_s"
SHARED_ALONE = "store/alone_s"

EXIT_STOPPED = 75  # EX_TEMPFAIL: resume me
EXIT_STORAGE = 74  # EX_IOERR: the disk is full, failing or read-only
CANNOT_WRITE = "cannot write: "  # begins the log's line that says why
EXIT_FENCED = 3  # somebody else has the run, or the attempt was called off before it began


@dataclass(frozen=True)
class Order:
    """Everything a worker needs to execute one attempt, JSON values only."""

    run_id: int
    number: int
    key: str
    job: str
    job_version: int
    params: Mapping[str, Any]
    seeds: Mapping[str, int]
    device_kind: str  # gpu | cpu
    device_id: str  # GPU UUID, or cpu:N
    numerics: str
    threads: int
    inputs: Mapping[str, Mapping[str, str]]  # name -> {kind, where, fingerprint}
    store: str
    allow_downloads: bool
    checkpoint_every_s: float
    checkpoint_every_steps: int | None
    sources: str = ""  # where files of jobs are kept
    worker_age_s: float = 0.0  # how long the worker's process had lived when it was given this

    def as_json(self) -> dict[str, Any]:
        """The order as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Order:
        """Read what :meth:`as_json` wrote; ValueError when fields are missing or unknown."""
        try:
            return cls(**value)
        except TypeError as error:
            raise ValueError(f"not an order: {error}") from error


@dataclass(frozen=True)
class Result:
    """How an attempt ended, in the worker's own words."""

    outcome: Outcome
    num_steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    state_sha256: str | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None  # one line for people
    why: str | None = None  # of a stop: cancel, hold, drain, time_limit, signal, data
    missing: str | None = None  # where the input should be that is not there
    artifacts: tuple[Mapping[str, Any], ...] = ()  # {name, bytes, sha256}
    events_offset: int = 0  # the stream is durable up to here

    def __post_init__(self) -> None:
        """Raise ValueError for what the ledger could not store as it is."""
        fits = {
            "outcome": isinstance(self.outcome, Outcome),
            "num_steps": _is_count(self.num_steps),
            "metrics": all(_is_text(k) and _is_finite(v) for k, v in self.metrics.items()),
            "state_sha256": self.state_sha256 is None or _is_text(self.state_sha256),
            "flags": all(map(_is_text, self.flags)),
            "error": self.error is None or _is_text(self.error),
            "why": self.why is None or _is_text(self.why),
            "missing": self.missing is None or _is_text(self.missing),
            "artifacts": all(map(_is_artifact, self.artifacts)),
            "events_offset": _is_count(self.events_offset),
        }
        for name in fits:
            if not fits[name]:
                raise ValueError(f"{name} of a result cannot be {getattr(self, name)!r}")

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """Read what :meth:`as_json` wrote; ValueError when it is damaged."""
        fields = dict(value)
        try:
            fields["outcome"] = Outcome(fields["outcome"])
            fields["flags"] = tuple(fields.get("flags", ()))
            fields["artifacts"] = tuple(fields.get("artifacts", ()))
            return cls(**fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a result: {error!r}") from error


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_finite(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 1 << 63
    return isinstance(value, float) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_utf8(value)


def _is_artifact(value: Mapping[str, Any]) -> bool:
    name = value["name"]
    return (
        _is_text(name)
        and name == PurePath(name).name  # a plain file name
        and _is_count(value["bytes"])
        and _is_text(value["sha256"])
    )
