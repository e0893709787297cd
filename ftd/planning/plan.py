"""The plan: every cell, candidate and replicate of a spec becomes a run with a key.

A run's key hashes everything that determines its result, and nothing else; two places of one
experiment, or of two, that ask the same question have the same key and share one run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftd.document import KeyPath
from ftd.environment import library_versions
from ftd.outline import PLAIN, Outline, Tuning
from ftd.planning.producers import Producers, no_runs
from ftd.planning.resolve import Factors, Question, Resolver
from ftd.planning.sources_read import SourcesRead
from ftd.spec.confounding import bundled
from ftd.spec.declared import ConditionalFactor
from ftd.spec.design import Cell, cells
from ftd.spec.experiment import ExperimentSpec
from ftd.spec.levels import Label
from ftd.spec.replicates import num_inner, replicates
from ftd.spec.tuning import Candidate, candidates

KEY_FORMAT = 1  # raise it when the same run would get another key
MIN_FOR_EDGES = 3  # levels of a tuned number: of two, each is an edge


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
    """What becomes a membership: a place in the experiment, and the run it needs."""

    cell: int
    replicate: int  # 0-based
    factors: Factors  # typed value or level name, as shown to people
    run_key: str
    candidate: int = 0
    tuned: Factors = field(default_factory=dict)  # the candidate's levels, shown likewise


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
    candidates: int = 1  # of each cell
    outline: Outline = PLAIN
    bundles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # see confounding
    labels_used: tuple[str, ...] = ()  # by cell, for people; empty where the job does not tell
    job_file: bytes | None = None  # of a job that is a file of its own: what is to be executed


def make_plan(
    spec: ExperimentSpec,
    base: Path,
    *,
    device_kind: str,
    fresh_nonce: str | None = None,
    producers: Producers = no_runs,
) -> Plan:
    """Plan every cell, candidate and replicate of `spec`; relative paths in it start at `base`.

    `device_kind` is ``gpu`` or ``cpu``, already resolved.  A `fresh_nonce` gives every run a key
    of its own; `producers` gives the run that the spec names, or those of an experiment.
    Reads nothing but the inputs that the job names (each fingerprinted once).

    Raises SpecError naming the line, key or level of what cannot be run.
    """
    repeated = replicates(spec)
    resolver = Resolver(spec, base, producers, 1 + max(one.unit for one in repeated))
    versions = resolver.own.versions if resolver.own else library_versions()
    common = _encode(
        {
            "format": KEY_FORMAT,
            "job": resolver.job_name,
            "job_version": resolver.job.version,
            "device_kind": device_kind,
            "libraries": versions,
            "nonce": fresh_nonce,
        }
    )
    encoded_seeds = [_encode(replicate.seeds) for replicate in repeated]
    tried = candidates(spec)
    runs: dict[str, PlannedRun] = {}
    places = []
    shown: list[Factors] = []
    labels_used: list[str] = []
    primary_metric = ""
    grid: dict[str, dict[Label, float | None]] = {}  # tuned name -> level as shown -> its number
    levels: dict[str, dict[KeyPath, Mapping[str, Any]]] = {}  # factor -> what its levels set
    read = SourcesRead()
    for cell in cells(spec):
        for name, level in cell.chosen.items():
            levels.setdefault(name, {})[level.at] = level.assignments
        for candidate in tried:
            question = resolver.question(cell.tried(candidate))
            factors, tuned = _told_apart(question.factors, cell)
            _note_numbers(grid, candidate, tuned)
            if candidate.index == 0:
                shown.append(factors)
                labels_used.append(question.labels_used)
                read.note(factors, question.inputs)
                primary_metric = primary_metric or question.primary_metric
            asked = [_encode(_determining(question, inputs)) for inputs in question.inputs]
            for replicate, encoded in zip(repeated, encoded_seeds, strict=True):
                # the canonical JSON of {common, question, seeds}, each part encoded once
                unit = replicate.unit % len(asked)
                text = f'{{"common":{common},"question":{asked[unit]},"seeds":{encoded}}}'
                key = hashlib.sha256(text.encode()).hexdigest()
                places.append(
                    Place(cell.index, replicate.index, factors, key, candidate.index, tuned)
                )
                if key not in runs:
                    runs[key] = PlannedRun(
                        key=key,
                        job=resolver.job_name,
                        job_version=resolver.job.version,
                        params=question.params,
                        seeds=replicate.seeds,
                        numerics=question.execution.numerics,
                        threads=question.execution.threads,
                        device_kind=device_kind,
                        inputs=question.inputs[unit],
                        versions=versions,
                        time_limit_s=spec.limits.time_s,
                    )
    outline = _outline(spec, shown[0], grid, read, 1 + max(one.unit for one in repeated))
    return Plan(
        name=spec.experiment,
        job=resolver.job_name,
        runs=tuple(runs.values()),
        places=tuple(places),
        cells=tuple(shown),
        replicates=len(repeated),
        priority=spec.priority,
        primary_metric=primary_metric,
        spec_digest=digest({"spec": spec.document.plain(), "keys": list(runs)}),
        candidates=len(tried),
        outline=outline,
        bundles=bundled(
            {name: [*some.values()] for name, some in levels.items() if name not in outline.roles}
        ),
        labels_used=tuple(labels_used) if any(labels_used) else (),
        job_file=resolver.own.kept if resolver.own else None,
    )


def _told_apart(levels: Factors, cell: Cell) -> tuple[Factors, Factors]:
    """The levels of a cell's own factors, and of what is tuned."""
    own = {name: label for name, label in levels.items() if name in cell.chosen}
    return own, {name: label for name, label in levels.items() if name not in cell.chosen}


def _note_numbers(
    grid: dict[str, dict[Label, float | None]], candidate: Candidate, tuned: Factors
) -> None:
    """Remember which number each tuned level stands for, if it is one."""
    for name, level in candidate.chosen.items():
        values = list(level.assignments.values())
        number = tuned[name] if not level.named else values[0] if len(values) == 1 else None
        plain = isinstance(number, int | float) and not isinstance(number, bool)
        grid.setdefault(name, {})[tuned[name]] = number if plain else None  # type: ignore[assignment]


def _outline(
    spec: ExperimentSpec,
    first: Factors,
    grid: Mapping[str, Mapping[Label, float | None]],
    read: SourcesRead,
    num_units: int,
) -> Outline:
    """What a summary must know; `first` is the first cell, the baseline where there is one."""
    roles = {
        name: declared.role
        for name, declared in spec.factors.items()
        if isinstance(declared, ConditionalFactor) and declared.role != "factor"
    }
    tuning = None
    if spec.tune is not None:
        edges = {}
        for name, levels in grid.items():
            numbers = [(number, label) for label, number in levels.items() if number is not None]
            if len(numbers) == len(levels) >= MIN_FOR_EDGES:
                numbers.sort(key=lambda pair: pair[0])
                edges[name] = (numbers[0][1], numbers[-1][1])
        tuning = Tuning(spec.tune.select, spec.tune.per, edges)
    baseline = first if spec.baseline is not None else None
    one_source = tuple(name for name in read.of_one_net(num_units) if name not in roles)
    return Outline(roles, baseline, num_inner(spec), tuning, one_source)


def _determining(question: Question, inputs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    return {
        "identity": question.identity,
        "numerics": question.execution.numerics,
        "threads": question.execution.threads,
        "inputs": {name: item["fingerprint"] for name, item in inputs.items()},
    }


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def digest(value: Mapping[str, Any]) -> str:
    """Hex sha256 of JSON values, independent of the order of keys."""
    return hashlib.sha256(_encode(value).encode()).hexdigest()
