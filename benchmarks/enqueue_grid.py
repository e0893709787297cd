"""``ftd enqueue`` of a grid of 10,000 cells into a home that does not exist yet."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost import BARE, Cost, alternated, ftd, of_command
from benchmarks.figures import Figure, Goal


@dataclass(frozen=True)
class Size:
    """How much is measured: a grid of `levels` ** 4 cells."""

    levels: int = 10
    repeats: int = 9


SMALL = Size(levels=2, repeats=1)


def measure(size: Size) -> list[Figure]:
    """The time of the whole command, to the committed transaction."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
        root = Path(folder)
        spec = root / "grid.yaml"
        spec.write_text(_grid(size.levels))
        homes = iter(range(size.repeats))

        def enqueue() -> Cost:
            home = root / f"home{next(homes)}"
            return of_command(ftd("enqueue", str(spec)), home)

        found = alternated({"bare": lambda: of_command(BARE), "enqueue": enqueue}, size.repeats)
    num_cells = size.levels**4
    pairs = list(zip(found["enqueue"], found["bare"], strict=True))
    return [
        Figure(f"wall, {num_cells:,} cells", "s", [e.wall_s for e, _ in pairs], Goal(1.5)),
        Figure(f"CPU, {num_cells:,} cells", "s", [e.cpu_s for e, _ in pairs]),
        Figure("CPU, of a bare start", "x", [e.cpu_s / b.cpu_s for e, b in pairs]),
    ]


def _grid(levels: int) -> str:
    """A spec of four factors (JSON is YAML)."""
    factors = {
        "score": [number / 100 for number in range(levels)],
        "noise": [number / 1000 for number in range(levels)],
        "width": list(range(1, levels + 1)),
        "metric_every": list(range(1, levels + 1)),
    }
    return json.dumps({"experiment": "grid", "job": "drill", "steps": 3, "factors": factors})
