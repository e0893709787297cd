"""Measures taken from the store, each computed by whoever asks for it first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from ftd.job import Context
from jobs.distances.halves import Estimate
from jobs.distances.measures import Found, Measuring
from jobs.params.distance import Measure

FILE = "found.json"


def taken(
    measuring: Measuring, measure: Measure, numerics: Mapping[str, Any], context: Context
) -> tuple[Found, bool]:
    """What `measure` finds, and whether it had to be computed now."""
    key = measuring.key(measure, numerics)
    is_new = not context.store.has("distances", key)
    if is_new:
        measuring.prepare(measure)  # before, so that its cost is not counted twice

    @cache  # also where there is no room to keep it
    def text() -> str:
        return _text(measuring.measured(measure))

    def make() -> Mapping[str, Any]:
        return {FILE: lambda path: path.write_text(text())}

    folder = context.store.entry("distances", key, make)
    return _read(folder / FILE), is_new


def _text(found: Found) -> str:
    estimates = {name: asdict(estimate) for name, estimate in found.estimates.items()}
    return json.dumps({"estimates": estimates, "details": dict(found.details)})


def _read(path: Path) -> Found:
    told = json.loads(path.read_text())
    estimates = {name: Estimate(**estimate) for name, estimate in told["estimates"].items()}
    return Found(estimates, told["details"])
