"""The JSON schema of specs: the service's keys and, for one job, its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftd import catalog
from ftd.job import Job
from ftd.planning import described
from ftd.planning.described import DescribedJob
from ftd.spec.experiment import ExperimentSpec


def schema(job_name: str | None = None) -> dict[str, Any]:
    """JSON schema of a spec; with `job_name`, of that job's specs with every key described.

    A parameter of the job is never required at the top: a factor may set it instead.  A path in
    `job_name` starts at the current folder.  Raises UnknownName for a job that does not exist,
    InputError for one that cannot be described.
    """
    merged = ExperimentSpec.model_json_schema()
    merged["title"] = "spec"
    names = catalog.job_names() if job_name is None else [job_name]
    # besides the built-in ones, whatever names code: ./soup.py:Soup, package.module:Soup, a name
    merged["properties"]["job"]["examples" if job_name is None else "enum"] = names
    if job_name is None:
        return merged
    params = _of_params(described.find(job_name, Path.cwd()))
    merged["title"] = f"spec of {job_name}"
    merged["properties"] |= params.get("properties", {})
    merged["$defs"] = merged.get("$defs", {}) | params.get("$defs", {})
    merged["additionalProperties"] = False
    return merged


def _of_params(job: Job[Any]) -> dict[str, Any]:
    if isinstance(job, DescribedJob):
        return dict(job.schema)
    return job.Params.model_json_schema()
