"""``ftd status`` with 100,000 runs in the ledger."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost import BARE, alternated, ftd, of_command
from benchmarks.figures import Figure, Goal
from benchmarks.filled import MIXED, fill


@dataclass(frozen=True)
class Size:
    """How much is measured: runs in the ledger and the experiments they belong to."""

    num_runs: int = 100_000
    num_experiments: int = 40
    repeats: int = 15


SMALL = Size(num_runs=100, num_experiments=2, repeats=1)


def measure(size: Size) -> list[Figure]:
    """The time of the whole command, as a table in a pipe and as JSON."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
        home = fill(Path(folder) / "home", size.num_runs, size.num_experiments, MIXED).root
        subjects = {
            "bare": lambda: of_command(BARE),
            "piped": lambda: of_command(ftd("status"), home),
            "--json": lambda: of_command(ftd("status", "--json"), home),
        }
        found = alternated(subjects, size.repeats)
    figures = []
    for name in ("piped", "--json"):
        costs = found[name]
        figures += [
            Figure(f"wall, {name}", "ms", [cost.wall_s * 1e3 for cost in costs], Goal(150)),
            Figure(f"CPU, {name}", "ms", [cost.cpu_s * 1e3 for cost in costs]),
        ]
    ratios = [
        one.cpu_s / bare.cpu_s for one, bare in zip(found["piped"], found["bare"], strict=True)
    ]
    return [*figures, Figure("CPU, piped, of a bare start", "x", ratios)]
