"""The daemon when there is nothing to do: CPU time and memory, ledger empty and full."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost import ftd
from benchmarks.figures import Figure, Goal
from benchmarks.filled import ALL_DONE, fill
from ftd.daemon.presence import daemon_identity
from ftd.layout import Home

DEADLINE_S = 60.0
SETTLE_S = 2.0  # from serving to the first look: the first tick is no idling


@dataclass(frozen=True)
class Size:
    """How much is measured: `repeats` windows of `window_s` seconds."""

    num_runs: int = 100_000
    num_experiments: int = 40
    window_s: float = 60.0
    repeats: int = 3


SMALL = Size(num_runs=100, num_experiments=2, window_s=0.5, repeats=1)


def measure(size: Size) -> list[Figure]:
    """Share of a core and resident memory of two daemons, which idle side by side."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder, ExitStack() as daemons:
        root = Path(folder)
        full = f"{size.num_runs:,} runs"
        homes = {
            "empty": Home(root / "empty"),
            full: fill(root / "full", size.num_runs, size.num_experiments, ALL_DONE),
        }
        pids = {name: daemons.enter_context(_serving(home)) for name, home in homes.items()}
        time.sleep(SETTLE_S)
        cores: dict[str, list[float]] = {name: [] for name in pids}
        for _ in range(size.repeats):
            before = {name: _cpu_s(pid) for name, pid in pids.items()}
            started = time.monotonic()
            time.sleep(size.window_s)
            elapsed_s = time.monotonic() - started
            for name, pid in pids.items():
                cores[name].append(100 * (_cpu_s(pid) - before[name]) / elapsed_s)
        memory = {name: _memory_mb(pid) for name, pid in pids.items()}
    figures = []
    for name in pids:
        figures += [
            Figure(f"CPU, {name}", "% of a core", cores[name], Goal(0.5)),
            Figure(f"memory, {name}", "MB", [memory[name]], Goal(80)),
        ]
    return figures


@contextmanager
def _serving(home: Home) -> Iterator[int]:
    """A daemon's pid for the length of a block."""
    home.root.mkdir(exist_ok=True)
    locks = home.root / "locks"
    locks.mkdir()
    (home.root / "ftd.toml").write_text(f'[devices]\nlock_directory = "{locks}"\n')
    daemon = subprocess.Popen(
        ftd("daemon"),
        env={**os.environ, "FTD_HOME": str(home.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while daemon_identity(home) is None:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon of {home.root} does not serve")
            time.sleep(0.05)
        yield daemon.pid
    finally:
        daemon.terminate()
        daemon.wait()


def _cpu_s(pid: int) -> float:
    """CPU seconds of all of a process's threads, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _memory_mb(pid: int) -> float:
    """Resident memory in units of 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (resident,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(resident.split()[1]) * 1024 / 1e6
