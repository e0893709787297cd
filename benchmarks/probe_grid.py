"""A grid of probes through the daemon against a script that does the same in one process.

The script computes features once, keeps them in memory and fits every cell in a loop: one pass and
the solvers' own time, and nothing else.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.cost import Cost, ftd, of_command
from benchmarks.figures import Figure, Goal

LAYERS = (2, 4, 6, 8, 10, 12, 14, 16, 17, 18)
COMPONENTS = (None, 8, 16, 32, 64)
SOLVERS = ("ridge", "svm", "soft", "knn", "logistic")

SPEC = """
experiment: probes
job: probe
model: {{name: efficientnet_lite0}}
target: {{dataset: elpv, decode_size: {pixels}, split: random, test_fraction: 0.25}}
factors:
  features.layer: {layers}
  features.pooling.grid: {grids}
  features.pooling.by: {by}
  normalise.pca: {components}
  solver:
{solvers}
device: cpu
"""
LEVELS = {
    "ridge": "{kind: ridge, penalty: 1}",
    "svm": "{kind: svm, C: 1}",
    "soft": "{kind: svm, C: 0.1}",
    "knn": "{kind: knn, k: 5}",
    "logistic": "{kind: logistic, C: 1}",
}


@dataclass(frozen=True)
class Size:
    """How much is measured: cells are layers x 2 grids x 2 kinds x components x solvers."""

    pixels: int = 96
    layers: int = len(LAYERS)
    components: int = len(COMPONENTS)
    solvers: int = len(SOLVERS)
    slots: int = 2  # devices of the second daemon; 1: there is none


SMALL = Size(pixels=16, layers=1, components=1, solvers=1, slots=1)


@dataclass(frozen=True)
class Cell:
    """One combination of levels."""

    layer: int
    grid: int
    by: str
    pca: int | None
    solver: str


def grid(size: Size) -> list[Cell]:
    """All cells, in the spec's order."""
    levels = (
        LAYERS[-size.layers :], (1, 2), ("mean", "max"), COMPONENTS[: size.components],
        SOLVERS[: size.solvers],
    )  # fmt: skip
    return [Cell(*combination) for combination in itertools.product(*levels)]


def measure(size: Size) -> list[Figure]:
    """Seconds and memory of both; the goal is a share of the script's pass and solvers."""
    cells = len(grid(size))
    arguments = tuple(map(str, astuple(size)))
    script = (sys.executable, "-m", "benchmarks.probe_script", *arguments)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        script, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    plain = json.loads(done.stdout)
    plain_s = plain["decoding_s"] + plain["pass_s"] + plain["solvers_s"]
    figures = [
        Figure("script, decoding and pass", "s", [plain_s - plain["solvers_s"]]),
        Figure("script, solvers", "s", [plain["solvers_s"]]),
        Figure("script, CPU time", "s", [plain["cpu_s"]]),
        Figure("script, memory", "MB", [plain["memory_bytes"] / 1e6]),
    ]
    for slots in sorted({1, size.slots}):
        served = _daemon(size, slots)
        name = f"daemon, {slots} slot{'s' if slots > 1 else ''}"
        figures += [
            Figure(name, "s", [served.cost.wall_s]),
            Figure(f"{name}, CPU time", "s", [served.cost.cpu_s]),
            Figure(f"{name}, a cell", "ms", [served.cost.wall_s / cells * 1000]),
            Figure(f"{name}, memory", "MB", [served.memory_bytes / 1e6]),
            Figure(f"{name}, of the script", "x", [served.cost.wall_s / plain_s], Goal(1.2)),
        ]
    return figures


@dataclass(frozen=True)
class Served:
    """What a daemon took, and the memory of it and its workers at the most."""

    cost: Cost
    memory_bytes: int


def _daemon(size: Size, slots: int) -> Served:
    """The grid through a daemon with so many slots, from nothing to the last result."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "ftd.toml").write_text(
            f'[devices]\ncpu_slots = {slots}\nlock_directory = "{folder}/locks"\n'
        )
        spec = Path(folder) / "probes.yaml"
        spec.write_text(_spec(size))
        of_command(ftd("enqueue", str(spec)), home)
        with _watched(home) as most:
            cost = of_command(ftd("daemon", "--until-idle"), home)
        listed = subprocess.run(
            ftd("runs", "--json"), env={**os.environ, "FTD_HOME": str(home)}, capture_output=True
        )
        states = [run["state"] for run in json.loads(listed.stdout)]
        if states != ["done"] * len(grid(size)):
            raise RuntimeError(f"of the runs {len(states)}, {states.count('done')} are done")
    return Served(cost, max(most))


def _spec(size: Size) -> str:
    components = ["null" if one is None else str(one) for one in COMPONENTS[: size.components]]
    solvers = [f"    - {{name: {name}, value: {LEVELS[name]}}}" for name in SOLVERS[: size.solvers]]
    return SPEC.format(
        pixels=size.pixels,
        layers=list(LAYERS[-size.layers :]),
        grids=[1, 2],
        by="[mean, max]",
        components=f"[{', '.join(components)}]",
        solvers="\n".join(solvers),
    )


@contextmanager
def _watched(home: Path) -> Iterator[list[int]]:
    """The memory, looked at five times a second, of all processes that serve `home`."""
    seen, done = [0], threading.Event()
    mark = f"FTD_HOME={home}".encode()

    def look() -> None:
        while not done.wait(0.2):
            seen.append(
                sum(_private_bytes(process, mark) for process in Path("/proc").glob("[0-9]*"))
            )

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _private_bytes(process: Path, mark: bytes) -> int:
    """What a process has for itself, if `mark` is in its environment; forks share the rest."""
    try:
        if mark not in (process / "environ").read_bytes():
            return 0
        sizes = dict(
            line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:]
        )
    except (OSError, ValueError):
        return 0
    return int(sizes["Pss"].split()[0]) * 1024
