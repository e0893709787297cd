"""What daemon and worker say to each other: the files of an attempt's directory.

order.json       sealed by the daemon before the worker starts: everything it needs
worker.json      sealed by the worker once it holds the run's lock: who it is
stop.json        sealed by the daemon: checkpoint and leave, and why
revoked.json     sealed by the daemon, holding the run's lock: this attempt must never start
events.jsonl     stream: metrics, progress, notes
heartbeat        its mtime says the worker's process turns over (evidence, never a verdict)
log.txt          standard output and error
checkpoints/N/   sealed folders
artifacts/       files the job keeps
result.json      sealed last by the worker; if it exists, it decides
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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

EXIT_STOPPED = 75  # EX_TEMPFAIL: resume me
EXIT_STORAGE = 74  # EX_IOERR: the disk is full, failing or read-only
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

    def as_json(self) -> dict[str, Any]:
        """The order as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Order:
        """Read what :meth:`as_json` wrote; TypeError when fields are missing or unknown."""
        return cls(**value)


@dataclass(frozen=True)
class Result:
    """How an attempt ended, in the worker's own words."""

    outcome: Outcome
    num_steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    state_sha256: str | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None  # one line for people
    why: str | None = None  # of a stop: cancel, hold, drain, time_limit, signal
    artifacts: tuple[Mapping[str, Any], ...] = ()  # {name, bytes, sha256}
    events_offset: int = 0  # the stream is durable up to here

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """Read what :meth:`as_json` wrote; TypeError, KeyError or ValueError when it is damaged."""
        fields = dict(value)
        fields["outcome"] = Outcome(fields["outcome"])
        fields["flags"] = tuple(fields.get("flags", ()))
        fields["artifacts"] = tuple(fields.get("artifacts", ()))
        return cls(**fields)
