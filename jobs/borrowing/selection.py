"""What is selected of a pool for the target's images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from ftd.job import Context
from jobs.borrowing.lending import Lending
from jobs.data.images import Images
from jobs.data.keyed import Indices, keyed_order
from jobs.descriptors.neighbours import Nearest, nearest
from jobs.params.joint import HardParams, SelectionParams


@dataclass(frozen=True)
class Selection:
    """What N target images can borrow: the same ``fixed`` rows of the pool, or ``neighbours``."""

    wanted: SelectionParams
    pool: Images
    num_images: int
    seed: int
    fixed: Indices | None = None
    neighbours: Nearest | None = None

    @classmethod
    def of(
        cls,
        wanted: SelectionParams,
        hard: HardParams | None,
        target: Images,
        target_indices: Indices,
        pool: Images,
        rows: Indices,
        context: Context,
        pause: Callable[[], None],
    ) -> Selection:
        """What resolved `wanted` selects of the pool's `rows`, for the samples `target_indices`.

        `pause` is called often while neighbours are looked for and may raise to leave.  Raises
        DataError when there are too few images.
        """
        seed, num_images = context.seeds["source"], len(target_indices)
        found: Nearest | None = None
        if wanted.looks_for_neighbours:
            most = 1 if hard is None or wanted.by != "descriptors" else hard.most_neighbours
            k = min(wanted.neighbours * most, max(wanted.neighbours, len(rows)))
            found = nearest(
                wanted.descriptors, target, target_indices, pool, rows, k, context, pause
            )
        if wanted.by == "descriptors":
            return cls(wanted, pool, num_images, seed, neighbours=found)
        number = len(rows)
        if wanted.by != "all":
            number = wanted.num_images or len(np.unique(_required(found).indices))
        if number > len(rows):
            raise DataError(
                f"{number} images are to be borrowed, and there are {len(rows)}",
                where="selection.num_images",
                fix=f"Ask for at most {len(rows)}",
            )
        draw = some_of_each_class if wanted.by == "balanced_random" else some
        return cls(wanted, pool, num_images, seed, fixed=draw(pool, rows, number, seed))

    def lending(self, levels: npt.NDArray[np.int64]) -> Lending:
        """What can be borrowed with images at these `levels` (N), 1 for all that are not hard."""
        if self.fixed is not None:
            found = Lending.to_anyone(self.fixed, self.num_images, self.seed)
        else:
            found = Lending.to_neighbours(self.near, self.numbers(levels), self.seed)
        if self.wanted.least_per_class:
            found = found.without_rare(self.pool.listing.labels, self.wanted.least_per_class)
        return found

    def numbers(self, levels: npt.NDArray[np.int64]) -> Indices:
        """K_i (N): how many neighbours images at these `levels` have."""
        return np.minimum(self.wanted.neighbours * levels, self.near.shape[1])

    @property
    def near(self) -> npt.NDArray[np.int32]:
        """The neighbours (N, k), nearest first."""
        return _required(self.neighbours).indices


def some(pool: Images, rows: Indices, number: int, seed: int) -> Indices:
    """`number` of the pool's `rows` (at most all), those of a smaller number among them."""
    return rows[keyed_order(pool.digests[rows], "borrowed", seed)][:number]


def some_of_each_class(pool: Images, rows: Indices, number: int, seed: int) -> Indices:
    """As :func:`some`, of each class equally many as far as there are."""
    ordered = some(pool, rows, len(rows), seed)
    labels = pool.listing.labels[ordered]
    turns = np.empty(len(ordered), np.int64)  # each class has one image in each
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        turns[members] = np.arange(len(members))
    return ordered[np.argsort(turns, kind="stable")[:number]]


def _required(found: Nearest | None) -> Nearest:
    assert found is not None, "neighbours are looked for"
    return found
