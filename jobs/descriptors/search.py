"""The k nearest of a pool for every target image: exact, in bounded memory, block by block.

All pairs are compared with bounds on their distances, which are cheap.  Of each block of the pool
those whose lower bounds are least are kept, a few more than k: as long as the first one left out is
surely farther than k others, nothing is lost.  Where bounds do not tell who is nearer, the distance
itself is computed in float64.  So the ranks are those of the definition, whatever the device, the
blocks and the threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from jobs.data.keyed import Bits, Indices
from jobs.descriptors.described import Described
from jobs.descriptors.divergence import (
    PRODUCTS,
    Comparison,
    Floats,
    Measure,
    comparison,
    distances,
    prepared,
)

READ = 64  # rows at once from the store
PREPARED = 16  # rows at once: few enough for a processor's cache
MOST_ROWS = 1024  # on either side to be compared at once
ROWS_BYTES = 1 << 28  # of one side; 8 bytes are needed per row and column
ELEMENTWISE_ROWS = 128
Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Candidates:
    """For each of T targets some of the pool, by ascending ``lower`` bounds.

    ``places`` in the pool are int32 (T, W); the distance is from ``lower`` to ``upper`` (float64,
    (T, W)).
    """

    places: Places
    lower: Floats
    upper: Floats

    @classmethod
    def merged(cls, several: Sequence[Candidates], width: int) -> Candidates:
        """The `width` whose lower bounds are least, of disjoint parts of the pool."""
        places = np.concatenate([one.places for one in several], 1)
        lower = np.concatenate([one.lower for one in several], 1)
        upper = np.concatenate([one.upper for one in several], 1)
        order = np.argsort(lower, axis=1, kind="stable")[:, :width]
        return cls(*(np.take_along_axis(one, order, 1) for one in (places, lower, upper)))

    def of(self, targets: npt.NDArray[np.bool_]) -> Candidates:
        """Those of some of the targets (T)."""
        return Candidates(self.places[targets], self.lower[targets], self.upper[targets])

    def suffices(self, k: int, num_pool: int) -> npt.NDArray[np.bool_]:
        """For which targets (T) the `k` nearest of the pool are surely among these."""
        width = self.places.shape[1]
        if width >= num_pool:
            return np.ones(len(self.places), np.bool_)
        kth = np.partition(self.upper, k - 1, axis=1)[:, k - 1]
        return np.asarray(kth < self.lower[:, -1])


class Search:
    """The comparison of the rows of `targets` with those of `pool`.

    ``block_rows`` are compared with as many others at once.
    """

    def __init__(self, measure: Measure, targets: Described, pool: Described, device: str) -> None:
        self._measure, self._targets, self._pool = measure, targets, pool
        self._weights = targets.weights
        self._comparison: Comparison = comparison(measure, self._weights, device)
        self.block_rows = ELEMENTWISE_ROWS
        if measure in PRODUCTS:
            self.block_rows = min(MOST_ROWS, max(16, ROWS_BYTES // (8 * len(self._weights))))

    def candidates(
        self, targets: Indices, pool: range, width: int, pause: Callable[[int], None]
    ) -> Candidates:
        """The `width` (or all) of the places `pool` for the targets at `targets` (ascending).

        `pause(place)` is called after each block, which ends there, and may raise to leave.
        """
        ours = self._comparison.operand(self._rows(self._targets, targets), len(targets))
        found: list[Candidates] = []
        for start in range(pool.start, pool.stop, self.block_rows):
            places = np.arange(start, min(start + self.block_rows, pool.stop))
            theirs = self._comparison.operand(self._rows(self._pool, places), len(places))
            lower, upper = self._comparison.bounds(ours, theirs)
            least, order = torch.topk(lower, min(width, len(places)), dim=1, largest=False)
            more = Candidates(
                places[order.cpu().numpy()].astype(np.int32),
                least.cpu().numpy(),
                upper.gather(1, order).cpu().numpy(),
            )
            found = [Candidates.merged([*found, more], width)]
            pause(int(places[-1]) + 1)
        return found[0]

    def settled(
        self,
        targets: Indices,
        candidates: Candidates,
        k: int,
        digests: Bits,
        pause: Callable[[], None],
    ) -> tuple[Places, Floats]:
        """The `k` nearest in order, and their distances: (T, k) each.

        Equally near ones are ordered by their `digests`, of the whole pool.  `candidates` suffice.
        `pause` is called after some pairs and may raise to leave.
        """
        places = candidates.places
        found = (candidates.lower + candidates.upper) / 2
        rows, columns = np.nonzero(_unclear(candidates, k))
        if len(rows):
            found[rows, columns] = self._between(targets, rows, places[rows, columns], pause)
        order = np.lexsort((digests[places], found), axis=1)[:, :k]
        found = np.maximum(found, 0)  # the middle of bounds around 0 may lie below
        return np.take_along_axis(places, order, 1), np.take_along_axis(found, order, 1)

    def _between(
        self, targets: Indices, rows: Indices, places: Places, pause: Callable[[], None]
    ) -> Floats:
        """The distances of pairs, as defined: of the row of a target in `targets` and a place."""
        ours = self._held(self._targets, targets)
        found = np.empty(len(rows))
        order = np.argsort(places, kind="stable")  # the pool is read in order, each row once
        distinct, first = np.unique(places[order], return_index=True)
        pairs = np.split(order, first[1:])
        start = 0
        for chunk in self._rows(self._pool, distinct):
            for theirs in chunk.swapaxes(0, 1):
                for pair in pairs[start]:  # one by one: copies of rows would take longer
                    one = ours[:, rows[pair], None]
                    found[pair] = distances(
                        self._measure, one, theirs[:, None], self._weights
                    ).item()
                start += 1
            pause()
        return found

    def _held(self, described: Described, places: Indices) -> Floats:
        """Prepared rows, all at once."""
        whole, start = np.empty((0, 0, 0)), 0
        for chunk in self._rows(described, places):
            if not start:
                whole = np.empty((len(chunk), len(places), chunk.shape[2]))
            whole[:, start : start + chunk.shape[1]] = chunk
            start += chunk.shape[1]
        return whole

    def _rows(self, described: Described, places: npt.NDArray[np.integer]) -> Iterator[Floats]:
        """Prepared rows, some at a time."""
        for part in np.split(places, range(READ, len(places), READ)):
            rows = described.rows(part)
            for start in range(0, len(rows), PREPARED):
                yield prepared(self._measure, rows[start : start + PREPARED])


def _unclear(candidates: Candidates, k: int) -> npt.NDArray[np.bool_]:
    """Which candidates (T, W) have bounds that overlap with another's, where that matters.

    Who is surely farther than k others does not matter.
    """
    lower, upper = candidates.lower, candidates.upper
    exact = lower == upper
    highest = np.maximum.accumulate(upper, axis=1)
    kth = np.partition(upper, k - 1, axis=1)[:, k - 1 : k]
    with_before = np.zeros(lower.shape, np.bool_)
    with_before[:, 1:] = lower[:, 1:] <= highest[:, :-1]
    with_after = np.zeros(lower.shape, np.bool_)
    with_after[:, :-1] = lower[:, 1:] <= upper[:, :-1]
    return np.asarray((with_before | with_after) & (lower <= kth) & ~exact)
