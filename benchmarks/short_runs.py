"""A short fine-tuning run, its worker started in either way, against a script that does the same.

One daemon with one slot executes the runs one after the other; a run's time is from the end of the
one before to its own, so that it holds all that the service adds.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost import alternated, ftd, of_command
from benchmarks.figures import Figure, Goal

SPEC = """
experiment: short
job: finetune
model: {{name: mini8, weights: none}}
layers: R(1-last)
target: {{dataset: digits, decode_size: 28, per_class: 10, val_per_class: 5}}
train: {{steps: {steps}, batch_size: 32, keep: last, validate_every_epochs: 1000}}
replicates: {runs}
"""
COLD = 2  # runs until one is forked


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int = 10
    repeats: int = 5
    steps: int = 20


SMALL = Size(runs=3, repeats=1, steps=2)


def measure(size: Size) -> list[Figure]:
    """Seconds per run, and as shares of the script's."""
    script = (sys.executable, str(Path(__file__).with_name("short_script.py")), str(size.steps))
    plain = [
        cost.wall_s
        for cost in alternated({"script": lambda: of_command(script)}, size.repeats)["script"]
    ]
    forked = _runs_s(size.runs, size.steps, warm=True)[COLD - 1 :]
    loading = _runs_s(size.runs // 2 + 1, size.steps, warm=False)
    middle = sorted(plain)[len(plain) // 2]
    return [
        Figure("script", "s", plain),
        Figure("run, forked worker", "s", forked),
        Figure("run, worker that loads torch", "s", loading),
        Figure("forked, of the script", "x", [s / middle for s in forked], Goal(1.0)),
    ]


def _runs_s(runs: int, steps: int, *, warm: bool) -> list[float]:
    """Wall-clock seconds of each run after the first, from the end of the one before."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "ftd.toml").write_text(
            f'[devices]\ncpu_slots = 1\nlock_directory = "{folder}/locks"\n'
            f"[jobs]\nwarm_start = {str(warm).lower()}\n"
        )
        environment = {**os.environ, "FTD_HOME": str(home)}
        spec = SPEC.format(steps=steps, runs=runs)

        def call(*arguments: str, text: str | None = None) -> str:
            done = subprocess.run(
                ftd(*arguments), env=environment, input=text, capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            return done.stdout

        call("enqueue", "-", text=spec)
        call("daemon", "--until-idle")
        ends = sorted(
            json.loads(call("show", f"r{number}", "--json"))["attempts"][-1]["ended_at"]
            for number in range(1, runs + 1)
        )
    return [end - before for before, end in itertools.pairwise(ends)]
