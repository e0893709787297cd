"""Searching a large pool for neighbours, against the definition and against a matrix product.

Descriptors have the shape of those of AlexNet's first two layers at 96 pixels; they are made up, as
nothing depends on what is in the pictures.  The search reads them from the store, like any other.
Everything is computed on one thread, in a process of its own, whose memory is looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import Figure, Goal


@dataclass(frozen=True)
class Size:
    """How much is compared with how much; memory is looked at with a pool of ``large`` images."""

    num_targets: int = 1024
    num_pool: int = 16384
    large_targets: int = 64
    large_pool: int = 100_000
    filters: tuple[int, ...] = (64, 192)  # of each layer
    positions: tuple[int, ...] = (529, 121)
    bins: int = 100
    k: int = 300
    pairs: int = 2048  # that the definition is timed on
    repeats: int = 3


SMALL = Size(
    num_targets=20, num_pool=600, large_targets=4, large_pool=700, filters=(2, 3), bins=10, k=20,
    pairs=10, repeats=2,
)  # fmt: skip


def measure(size: Size) -> list[Figure]:
    """Ratios of CPU time, and the memory; the goals are half of the machine's speed, and 2 GB."""
    with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
        told = [
            _script(folder, size, size.num_targets, size.num_pool, size.repeats),
            _script(folder, size, size.large_targets, size.large_pool, 1),
        ]
    searched, product, defined = (told[0][name] for name in ("search", "product", "definition"))
    num_columns = sum(size.filters) * size.bins
    operations = 4 * size.num_targets * size.num_pool * num_columns
    both = list(zip(product, searched, strict=True))
    return [
        Figure("search of all pairs, CPU time", "s", searched),
        Figure("a matrix product with as many operations", "s", product),
        Figure("its speed", "GFLOP/s", [operations / seconds / 1e9 for seconds in product]),
        Figure(
            "speed of the search, of the product's", "x",
            [one / other for one, other in both], Goal(0.5, at_least=True),
        ),
        Figure(
            "the definition's time for all pairs, of the search's", "x",
            [one / other for one, other in zip(defined, searched, strict=True)],
        ),
        Figure("pairs computed again", "%", [100 * told[0]["again"]]),
        Figure("memory", "MB", [told[0]["memory_bytes"] / 1e6], Goal(2000)),
        Figure("large pool, CPU time", "s", told[1]["search"]),
        Figure("large pool, memory", "MB", [told[1]["memory_bytes"] / 1e6], Goal(2000)),
        Figure("large pool, on disk", "MB", [told[1]["disk_bytes"] / 1e6]),
    ]  # fmt: skip


def _script(
    folder: str, size: Size, num_targets: int, num_pool: int, repeats: int
) -> dict[str, object]:
    """What a process of its own tells."""
    asked = {**asdict(size), "num_targets": num_targets, "num_pool": num_pool, "repeats": repeats}
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks.descriptors_script", folder, json.dumps(asked)),
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, object] = json.loads(done.stdout)
    return found
