"""What something costs: wall-clock time and CPU time, of a child process or of this one.

On a machine that others use too, CPU time is the steadier of the two; a ratio of alternated
measurements is steadier still.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BARE = (sys.executable, "-c", "pass")  # what any command written in Python costs at least


@dataclass(frozen=True)
class Cost:
    """Seconds of wall-clock time and of CPU time (user and system)."""

    wall_s: float
    cpu_s: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


def spent() -> Cost:
    """What this process has spent, counted from an arbitrary start; subtract two of them."""
    return Cost(time.perf_counter(), time.process_time())


def of_command(command: Sequence[str], home: Path | None = None) -> Cost:
    """What a command costs from its start to its end, its output read through a pipe.

    Raises RuntimeError with what it said when it fails.
    """
    environment = {**os.environ, **({"FTD_HOME": str(home)} if home else {})}
    before = _children()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    cost = _children() - before
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return cost


def _children() -> Cost:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(time.perf_counter(), used.ru_utime + used.ru_stime)


def alternated(subjects: Mapping[str, Callable[[], Cost]], repeats: int) -> dict[str, list[Cost]]:
    """Measure all `subjects` `repeats` times in turn, every other round in reverse order.

    What slows the machine down for a while then falls on all of them alike.
    """
    found: dict[str, list[Cost]] = {name: [] for name in subjects}
    for number in range(repeats):
        names = list(subjects) if number % 2 == 0 else list(reversed(list(subjects)))
        for name in names:
            found[name].append(subjects[name]())
    return found


def ftd(*arguments: str) -> tuple[str, ...]:
    """The installed ``ftd`` command of this Python, as people start it."""
    script = Path(sys.executable).with_name("ftd")
    if not script.is_file():
        raise RuntimeError(f"no {script}: install the project into this environment first")
    return (str(script), *arguments)
