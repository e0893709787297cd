"""Jobs by name, found without loading torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import ftd
from ftd.errors import ConfigError, UnknownName, closest
from ftd.job import Job

BUILT_IN = {
    "changes": "jobs.changes:Changes",
    "command": "jobs.command:Command",
    "distance": "jobs.distance:Distance",
    "drill": "jobs.drill:Drill",
    "ensemble": "jobs.ensemble:Ensemble",
    "finetune": "jobs.finetune:Finetune",
    "grow": "jobs.grow:Grow",
    "joint": "jobs.joint:Joint",
    "pretrain": "jobs.pretrain:Pretrain",
    "probe": "jobs.probe:Probe",
    "retrieval": "jobs.retrieval:Retrieval",
}


def job_names() -> list[str]:
    """The names a spec's ``job`` can take."""
    return sorted(BUILT_IN)


def job(name: str) -> Job[Any]:
    """The job called `name`; the same whoever asks, and light: no torch is imported.

    Raises UnknownName with the closest name, ConfigError when another package hides ``jobs``.
    """
    if name not in BUILT_IN:
        near = closest(name, job_names())
        raise UnknownName(
            f"there is no job '{name}'",
            fix=f"{near} Jobs: {', '.join(job_names())}".strip(),
        )
    check_not_hidden()
    module, _, attribute = BUILT_IN[name].partition(":")
    found: Job[Any] = getattr(importlib.import_module(module), attribute)()
    return found


def check_not_hidden() -> None:
    """Raise ConfigError when ``import jobs`` finds somebody else's folder instead of ours."""
    own = Path(ftd.__file__).resolve().parent.parent / "jobs"
    jobs = importlib.import_module("jobs")
    places = [Path(place).resolve() for place in getattr(jobs, "__path__", [])]
    if own in places:
        return
    place = places[0] if places else Path(str(jobs.__file__))
    raise ConfigError(
        f"{place} hides the package 'jobs' that belongs to ftd in {own.parent}",
        fix="Start the `ftd` command instead of `python -m`, or use `python -P`, and take that "
        "folder off PYTHONPATH",
    )
