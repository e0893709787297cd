"""The nearest images of a pool for every target image, from the store or searched for.

Entries of the store are the bins, the pool's descriptors shard by shard, the candidates of a block
of targets in a stretch of the pool, and the neighbours of a block of targets: whoever is killed
goes on behind the last one, and runs that ask for the same, or for other k, share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from ftd.job import Context, Writer
from jobs.data.images import Images
from jobs.data.keyed import Indices
from jobs.descriptors.described import Described, described
from jobs.descriptors.divergence import Measure, as_told
from jobs.descriptors.fitting import Progress
from jobs.descriptors.samples import Samples
from jobs.descriptors.search import Candidates, Places, Search
from jobs.params.descriptors import DescriptorParams

CANDIDATES, NEIGHBOURS = "candidates", "neighbours"  # kinds of entries
STRETCH = 8192  # rows of the pool: some seconds' work for a block of targets
SPARE, LEAST_SPARE = 4, 16  # candidates beyond k: one for so many of k, and so many besides
ROOM = 1 << 22  # candidates in memory, 20 bytes each and as much again several times to sort them
CANDIDATE_FILES = ("places", "lower", "upper")


@dataclass(frozen=True)
class Nearest:
    """For each of N target images k rows of a pool, nearest first.

    ``indices``: int32 (N, k), rows of the pool's listing; equally near ones by content digest.
    ``distances``: float32 (N, k), in terms of the measure.
    """

    indices: Places
    distances: npt.NDArray[np.float32]


def nearest(
    wanted: DescriptorParams,
    target: Images,
    target_indices: Indices,
    pool: Images,
    pool_indices: Indices,
    k: int,
    context: Context,
    pause: Callable[[], None],
) -> Nearest:
    """The `k` nearest of the samples `pool_indices` for each of the target's training images.

    `wanted` is resolved.  Whatever is fitted is fitted on `target_indices`, of which each is given
    a row of neighbours.  `pause` is called often and may raise to leave.  Raises DataError when the
    pool has fewer than `k` images, or is decoded to another size.
    """
    if target.size != pool.size:
        raise DataError(
            f"target images are decoded to {target.size} pixels, those of the pool to {pool.size}",
            fix="Decode both to the same size",
        )
    ours = Samples(target, np.unique(target_indices))
    theirs = Samples(pool, np.unique(pool_indices))
    if len(theirs) < k:
        raise DataError(
            f"{k} neighbours are asked for, and there are {len(theirs)} images to choose from",
            where="selection.neighbours",
            fix="Ask for fewer, or add sources",
        )

    def told(what: str, done: int, total: int) -> None:
        context.progress(0, 1, **{what: f"{done}/{total}"})
        pause()

    both = described(wanted, ours, theirs, context, partial(told, "describing"))
    finding = _Finding(wanted, *both, k, context, partial(told, "searching"))
    found = [finding.block(block) for block in finding.blocks]
    row = np.searchsorted(ours.indices, target_indices)
    places = np.concatenate([one for one, _ in found])[row]
    distances = np.concatenate([one for _, one in found])[row]
    return Nearest(theirs.indices[places].astype(np.int32), distances)


class _Finding:
    """Finding the neighbours of one target in one pool."""

    def __init__(
        self,
        wanted: DescriptorParams,
        targets: Described,
        pool: Described,
        k: int,
        context: Context,
        progress: Progress,
    ) -> None:
        assert wanted.measure is not None, "resolved"
        self._measure: Measure = wanted.measure
        self._targets, self._pool, self._k = targets, pool, k
        self._context, self._progress = context, progress
        self._num_targets, self._num_pool = len(targets.samples), len(pool.samples)
        self._width = 1 << (k + k // SPARE + LEAST_SPARE).bit_length()  # near k share candidates
        self._key = {
            "target": dict(targets.key),
            "pool": dict(pool.key),
            "pool_digests": _sha256(pool.samples.digests),  # for those that are equally near
            "measure": self._measure,
            "numpy": np.__version__,  # sums the distances
        }

    @cached_property
    def _search(self) -> Search:
        return Search(self._measure, self._targets, self._pool, self._context.device)

    @property
    def blocks(self) -> list[Indices]:
        """The targets in the parts that are searched for at once."""
        return self._cut(np.arange(self._num_targets), self._width)

    def block(self, targets: Indices) -> tuple[Places, npt.NDArray[np.float32]]:
        """The places in the pool of the neighbours of some targets, and their distances."""
        store = self._context.store
        key = {**self._key, "k": self._k, "targets": _sha256(targets)}
        if not store.has(NEIGHBOURS, key):  # each cost counts once: one after the other
            self._targets.have()
            self._pool.have()
            self._candidates(targets, self._width)

        def make() -> Mapping[str, Writer]:
            places, distances = self._settled(targets, self._width)
            return {
                "places.npy": partial(_save, places),
                "distances.npy": partial(_save, distances),
            }

        folder = store.entry(NEIGHBOURS, key, make)
        self._progress(int(targets[-1]) + 1, self._num_targets)
        return np.load(folder / "places.npy"), np.load(folder / "distances.npy")

    def _candidates(self, targets: Indices, width: int) -> Candidates:
        """The `width` best candidates of the pool, stretch by stretch."""
        found: list[Candidates] = []
        for start in range(0, self._num_pool, STRETCH):
            stretch = range(start, min(start + STRETCH, self._num_pool))
            key = {**self._key, "targets": _sha256(targets), "width": width}
            key |= {"first": stretch.start, "last": stretch.stop - 1}
            folder = self._context.store.entry(
                CANDIDATES, key, partial(self._searched, targets, stretch, width)
            )
            more = Candidates(*(np.load(folder / f"{name}.npy") for name in CANDIDATE_FILES))
            found = [Candidates.merged([*found, more], width)]
        return found[0]

    def _searched(self, targets: Indices, stretch: range, width: int) -> Mapping[str, Writer]:
        """The files of an entry of candidates."""

        def pause(done: int) -> None:
            part = len(targets) * done // self._num_pool
            self._progress(int(targets[0]) + part, self._num_targets)

        found = self._search.candidates(targets, stretch, width, pause)
        return {f"{name}.npy": partial(_save, getattr(found, name)) for name in CANDIDATE_FILES}

    def _settled(self, targets: Indices, width: int) -> tuple[Places, npt.NDArray[np.float32]]:
        """The neighbours and distances; where too many are equally near, of more candidates."""
        candidates = self._candidates(targets, width)
        enough = candidates.suffices(self._k, self._num_pool)
        places = np.empty((len(targets), self._k), np.int32)
        distances = np.empty(places.shape, np.float32)
        if enough.any():
            places[enough], found = self._search.settled(
                targets[enough], candidates.of(enough), self._k, self._pool.samples.digests,
                partial(self._progress, int(targets[0]), self._num_targets),
            )  # fmt: skip
            distances[enough] = as_told(self._measure, found)
        for rows in self._cut(np.flatnonzero(~enough), 2 * width):
            places[rows], distances[rows] = self._settled(targets[rows], 2 * width)
        return places, distances

    def _cut(self, targets: Indices, width: int) -> list[Indices]:
        """`targets` in blocks whose candidates, `width` each, there is room for."""
        num_rows = max(1, min(self._search.block_rows, ROOM // width))
        return [
            part for part in np.split(targets, range(num_rows, len(targets), num_rows)) if len(part)
        ]


def _sha256(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def _save(array: npt.NDArray[Any], path: Path) -> None:
    np.save(path, array)
