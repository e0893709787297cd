"""``ftd --help`` against a Python that starts and does nothing."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cost import BARE, alternated, ftd, of_command
from benchmarks.figures import Figure, Goal


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    repeats: int = 25


SMALL = Size(repeats=2)


def measure(size: Size) -> list[Figure]:
    """The ratio in wall-clock and in CPU time, and the time itself."""
    subjects = {
        "bare": lambda: of_command(BARE),
        "help": lambda: of_command(ftd("--help")),
    }
    found = alternated(subjects, size.repeats)
    pairs = list(zip(found["help"], found["bare"], strict=True))
    goal = Goal(3.0)
    return [
        Figure("wall, of a bare start", "x", [h.wall_s / b.wall_s for h, b in pairs], goal),
        Figure("CPU, of a bare start", "x", [h.cpu_s / b.cpu_s for h, b in pairs], goal),
        Figure("wall, ftd --help", "ms", [cost.wall_s * 1e3 for cost in found["help"]]),
        Figure("wall, bare start", "ms", [cost.wall_s * 1e3 for cost in found["bare"]]),
    ]
