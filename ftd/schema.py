"""The JSON schema of specs: the service's keys and, for one job, its parameters."""

from __future__ import annotations

from typing import Any

from ftd import catalog
from ftd.spec import ExperimentSpec


def schema(job_name: str | None = None) -> dict[str, Any]:
    """JSON schema of a spec; with `job_name`, of that job's specs with every key described.

    A parameter of the job is never required at the top: a factor may set it instead.
    Raises UnknownName for a job that does not exist.
    """
    merged = ExperimentSpec.model_json_schema()
    merged["title"] = "spec"
    names = catalog.job_names() if job_name is None else [job_name]
    merged["properties"]["job"]["enum"] = names
    if job_name is None:
        return merged
    params = catalog.job(job_name).Params.model_json_schema()
    merged["title"] = f"spec of {job_name}"
    merged["properties"] |= params.get("properties", {})
    merged["$defs"] = merged.get("$defs", {}) | params.get("$defs", {})
    merged["additionalProperties"] = False
    return merged
