"""``python -P -m ftd.worker --describe``: says what a job makes of parameters, for planning.

Whoever plans runs must not execute somebody's code: this process does, as the user who asks.  It
answers JSON lines with JSON lines until its input ends.  The first request names the job, every
other one holds parameters as written:

    {"job": "./soup.py:Soup", "base": "/lab", "file": "/lab/soup.py", "text": "...", "also": []}
      -> {"answer": {"version": 1, "schema": {...}, "imported": [], ...}}
    {"params": {...}}
      -> {"answer": {"params": {...}, "identity": {...}, "inputs": {...}, ...}}
    {"params": {...}, "budget": {"match": "steps", "value": 9}}
      -> {"answer": {"params": {...}}}, as written

Each may be answered by {"refused": {"what": ..., "where": ..., "fix": ..., "path": [...]}}.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import ftd
from ftd import catalog, source
from ftd.answers import answers
from ftd.environment import library_versions
from ftd.errors import InputError
from ftd.explain import Complaint, explain, parameter_paths
from ftd.job import Budget, Job, Params

HEAVY = ("torch", "tensorflow", "jax")


def main() -> int:
    """Answer until standard input ends; what a job prints goes to standard error."""
    channel = answers()
    describer = Describer()
    for line in sys.stdin:
        reply = describer.reply(json.loads(line))
        channel.write(json.dumps(reply, allow_nan=False) + "\n")
        channel.flush()
    return 0


class Describer:
    """A conversation about one job."""

    def __init__(self) -> None:
        self._job: Job[Any] | None = None
        self._base = Path()
        self._also: list[str] = []  # keys of a spec that are not the job's

    def reply(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request; whatever a job raises is one too."""
        try:
            made = self._answer(request)
            json.dumps(made, allow_nan=False)
            return {"answer": made}
        except InputError as error:
            return {"refused": self._refusal(error)}
        except Exception as error:  # whatever somebody's code raises, it is told
            return {"refused": {"what": f"its code raised {type(error).__name__}: {error}"}}

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._job is None:
            return self._begin(request)
        raw = request["params"]
        try:
            if "budget" in request:
                budget = Budget.model_validate(request["budget"])
                return {"params": dict(self._job.with_budget(raw, budget))}
            return answer(self._job, self._job.Params.model_validate(raw), self._base)
        except ValidationError as error:
            raise Refused(explain(error, raw, self._job.Params, self._also)) from error

    def _begin(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._base, self._also = Path(request["base"]), request["also"]
        self._job, code = _loaded(request)
        return {
            "version": self._job.version,
            "schema": self._job.Params.model_json_schema(),
            "source": code,
            "imported": [name for name in HEAVY if name in sys.modules],
            "python": platform.python_version(),
            "versions": library_versions(),
            "ftd": ftd.__version__,
        }

    def _refusal(self, error: InputError) -> dict[str, Any]:
        told = {"what": error.what, "where": error.where, "fix": error.fix}
        if isinstance(error, Refused):
            return {**told, "path": error.complaint.path, "whole": error.complaint.whole}
        if self._job is not None and error.where in parameter_paths(self._job.Params):
            return {**told, "path": error.where.split("."), "whole": False}
        return told


class Refused(InputError):
    """The job's Params do not take what was written."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.what, fix=complaint.fix)
        self.complaint = complaint


def _loaded(request: Mapping[str, Any]) -> tuple[Job[Any], dict[str, str]]:
    """The job, and its code as an input of its runs (empty for one that is built in)."""
    name, text = request["job"], request["text"]
    if text is not None:
        data = text.encode()
        code = {"kind": "source", "where": request["file"], "fingerprint": source.sha256(data)}
        return source.file_job(name, data, request["file"]), code
    if name in catalog.BUILT_IN:
        return catalog.job(name), {}
    job, fingerprint = source.installed_job(name)
    return job, {"kind": "module", "where": name, "fingerprint": fingerprint}


def answer(job: Job[Any], params: Params, base: Path) -> dict[str, Any]:
    """What planning needs to know of a job with validated `params`.

    Raises InputError for what the job refuses.
    """
    resolved = job.resolve(params, base)
    values = resolved.model_dump(mode="json")
    if job.Params.model_validate(json.loads(json.dumps(values))) != resolved:
        raise InputError(
            "the parameters are not the same once they were written as JSON and read again",
            fix="Use types that pydantic reads back as they were",
        )
    inputs = {
        name: [item.kind, item.where, item.cell, item.file]
        for name, item in job.inputs(resolved).items()
    }
    for name in source.CODE:
        if name in inputs:
            raise InputError(f"an input cannot be called '{name}'", fix="Give it another name")
    return {
        "params": values,
        "identity": dict(job.identity(resolved)),
        "inputs": inputs,
        "primary_metric": job.primary_metric(resolved),
        "labels_used": job.labels_used(resolved),
    }
