"""What a run costs that computes next to nothing: a worker each, forked, against turns in one.

A daemon with two slots executes them all; its time and that of all its processes, by the run.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost import Cost, alternated, ftd, of_command
from benchmarks.figures import Figure, Goal

SPEC = "experiment: tiny\njob: drill\nsteps: 1\nreplicates: {runs}\n"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int = 300
    repeats: int = 3


SMALL = Size(runs=4, repeats=1)


def measure(size: Size) -> list[Figure]:
    """Milliseconds per run, wall clock and CPU."""
    found = alternated(
        {
            "a worker each": lambda: _per_run(size.runs, share=False),
            "turns in one": lambda: _per_run(size.runs, share=True),
        },
        size.repeats,
    )
    figures = []
    for name, costs in found.items():
        figures += [
            Figure(f"{name}: wall", "ms", [1000 * cost.wall_s for cost in costs]),
            Figure(f"{name}: CPU", "ms", [1000 * cost.cpu_s for cost in costs]),
        ]
    ratios = [
        turns.cpu_s / each.cpu_s
        for each, turns in zip(found["a worker each"], found["turns in one"], strict=True)
    ]
    return [*figures, Figure("turns, of a worker each: CPU", "x", ratios, Goal(0.5))]


def _per_run(runs: int, *, share: bool) -> Cost:
    """What a daemon and its workers spend on one of `runs` runs, their own start shared by all."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "ftd.toml").write_text(
            f'[devices]\ncpu_slots = 2\ngpus = "none"\nlock_directory = "{folder}/locks"\n'
            f"[jobs]\nshare_workers = {str(share).lower()}\n"
        )
        subprocess.run(
            ftd("enqueue", "-"),
            env={**os.environ, "FTD_HOME": str(home)},
            input=SPEC.format(runs=runs),
            text=True,
            check=True,
            capture_output=True,
        )
        cost = of_command(ftd("daemon", "--until-idle"), home)
    return Cost(cost.wall_s / runs, cost.cpu_s / runs)
