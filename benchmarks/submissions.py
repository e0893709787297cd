"""Small specs through the Python API, each one committed to disk before the next.

Somebody keeps the ledger open meanwhile, as a daemon does.  The yardstick is what the disk allows:
how often a second some bytes can be appended to a file and synced.  A ledger that is full already
must not make a submission slower.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.filled import ALL_DONE, fill
from ftd.daemon.submit import EnqueueRequest, submit
from ftd.layout import Home
from ftd.ledger.db import open_ledger

SPEC = """
experiment: small-{number}
job: drill
seed: {number}
factors: {{score: [0.4, 0.6]}}
"""


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds of `batch` submissions."""

    num_runs: int = 100_000
    num_experiments: int = 40
    batch: int = 100
    repeats: int = 5


SMALL = Size(num_runs=100, num_experiments=2, batch=2, repeats=1)


def measure(size: Size) -> list[Figure]:
    """Submissions per second into a new ledger and into a full one, and syncs per second."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder, ExitStack() as ledgers:
        root = Path(folder)
        homes = {
            "new ledger": Home(root / "new"),
            f"ledger of {size.num_runs:,} runs": fill(
                root / "full", size.num_runs, size.num_experiments, ALL_DONE
            ),
        }
        for home in homes.values():
            ledgers.enter_context(closing(open_ledger(home, create=True)))
        subjects = {name: _submitting(home) for name, home in homes.items()}
        subjects["bare append and sync"] = _appending(root / "bytes")
        for act in subjects.values():
            act()  # imports what it needs
        rates: dict[str, list[float]] = {name: [] for name in subjects}
        for _ in range(size.repeats):
            for name, act in subjects.items():
                rates[name].append(_per_second(act, size.batch))
    return [Figure(name, "/s", found) for name, found in rates.items()]


def _submitting(home: Home) -> Callable[[], None]:
    numbers = count()

    def act() -> None:
        text = SPEC.format(number=next(numbers))
        submit(home, EnqueueRequest(text, "benchmark", "/", {}), "ann")

    return act


def _appending(path: Path) -> Callable[[], None]:
    def act() -> None:
        with path.open("ab") as stream:
            stream.write(b"x" * 4096)
            stream.flush()
            os.fsync(stream.fileno())

    return act


def _per_second(act: Callable[[], None], batch: int) -> float:
    started = time.perf_counter()
    for _ in range(batch):
        act()
    return batch / (time.perf_counter() - started)
