"""How long a worker has executed an attempt, whatever happened to the clock in between."""

from __future__ import annotations

from pathlib import Path

from ftd.files import read_json
from ftd.process import Identity, age_s
from ftd.protocol import ORDER


def executed_s(worker: Identity, directory: Path) -> float:
    """Seconds since the process `worker` was given the attempt in `directory`.

    A process that executes attempts in turn was as old as the order says by then.
    """
    given = (read_json(directory / ORDER) or {}).get("worker_age_s", 0.0)
    return age_s(worker) - (float(given) if isinstance(given, int | float) else 0.0)
