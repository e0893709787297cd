"""The plan: every cell and replicate of a spec becomes a run with a key.

A run's key hashes everything that determines its result, and nothing else; two places of one
experiment, or of two, that ask the same question have the same key and share one run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftd import seeds
from ftd.design import cells
from ftd.resolve import Factors, Question, Resolver
from ftd.spec import ExperimentSpec

KEY_FORMAT = 1  # raise it when the same run would get another key
LIBRARIES = ("torch", "torchvision", "numpy")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run to be executed unless its key is already known."""

    key: str  # hex sha256
    job: str
    job_version: int
    params: Mapping[str, Any]  # resolved, JSON values
    seeds: Mapping[str, int]
    numerics: str  # exact | fast
    threads: int
    device_kind: str  # gpu | cpu
    inputs: Mapping[str, Mapping[str, str]]  # name -> {kind, where, fingerprint}
    versions: Mapping[str, str | None]  # of libraries, major.minor
    time_limit_s: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """What becomes a membership: a cell and replicate of the experiment, and the run it needs."""

    cell: int
    replicate: int  # 0-based
    factors: Factors  # typed value or level name, as shown to people
    run_key: str


@dataclass(frozen=True)
class Plan:
    """A spec, planned.  ``runs`` are distinct by key, in order of their first place."""

    name: str
    job: str
    runs: tuple[PlannedRun, ...]
    places: tuple[Place, ...]
    cells: tuple[Factors, ...]
    replicates: int
    priority: int
    primary_metric: str  # of the first cell
    spec_digest: str  # of the spec's content and the keys it leads to


def make_plan(
    spec: ExperimentSpec, base: Path, *, device_kind: str, fresh_nonce: str | None = None
) -> Plan:
    """Plan every cell and replicate of `spec`; relative paths in it start at `base`.

    `device_kind` is ``gpu`` or ``cpu``, already resolved.  A `fresh_nonce` gives every run a key
    of its own.  Reads nothing but the inputs that the job names (each fingerprinted once).

    Raises SpecError naming the line, key or level of what cannot be run.
    """
    resolver = Resolver(spec, base)
    versions = library_versions()
    common = _encode(
        {
            "format": KEY_FORMAT,
            "job": spec.job,
            "job_version": resolver.job.version,
            "device_kind": device_kind,
            "libraries": versions,
            "nonce": fresh_nonce,
        }
    )
    streams = [seeds.streams(spec.seed, replicate) for replicate in range(spec.replicates)]
    encoded_streams = [_encode(stream) for stream in streams]
    runs: dict[str, PlannedRun] = {}
    places = []
    shown: list[Factors] = []
    primary_metric = ""
    for cell in cells(spec):
        question = resolver.question(cell)
        shown.append(question.factors)
        primary_metric = primary_metric or question.primary_metric
        asked = _encode(_determining(question))
        for replicate, encoded in enumerate(encoded_streams):
            # the canonical JSON of {common, question, seeds}, each part encoded once
            text = f'{{"common":{common},"question":{asked},"seeds":{encoded}}}'
            key = hashlib.sha256(text.encode()).hexdigest()
            places.append(Place(cell.index, replicate, question.factors, key))
            if key not in runs:
                runs[key] = PlannedRun(
                    key=key,
                    job=spec.job,
                    job_version=resolver.job.version,
                    params=question.params,
                    seeds=streams[replicate],
                    numerics=question.execution.numerics,
                    threads=question.execution.threads,
                    device_kind=device_kind,
                    inputs=question.inputs,
                    versions=versions,
                    time_limit_s=spec.limits.time_s,
                )
    return Plan(
        name=spec.experiment,
        job=spec.job,
        runs=tuple(runs.values()),
        places=tuple(places),
        cells=tuple(shown),
        replicates=spec.replicates,
        priority=spec.priority,
        primary_metric=primary_metric,
        spec_digest=digest({"spec": spec.document.plain(), "keys": list(runs)}),
    )


def _determining(question: Question) -> dict[str, Any]:
    return {
        "identity": question.identity,
        "numerics": question.execution.numerics,
        "threads": question.execution.threads,
        "inputs": {name: item["fingerprint"] for name, item in question.inputs.items()},
    }


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def digest(value: Mapping[str, Any]) -> str:
    """Hex sha256 of JSON values, independent of the order of keys."""
    return hashlib.sha256(_encode(value).encode()).hexdigest()


def library_versions() -> dict[str, str | None]:
    """``major.minor`` of the libraries whose version can change numbers; None when absent."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = ".".join(importlib.metadata.version(name).split(".")[:2])
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions
