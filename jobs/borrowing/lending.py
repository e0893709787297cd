"""Which images of the pool can be borrowed, and which one a target image borrows in an epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from jobs.data.keyed import Bits, Indices, keyed_uniform, splitmix64
from jobs.data.order import Order


@dataclass(frozen=True)
class Lending:
    """What each of the target's N training images can borrow, until the next round.

    Image i borrows any of ``members[firsts[i] : firsts[i] + numbers[i]]``, rows of the pool.
    """

    members: Indices
    firsts: Indices
    numbers: Indices
    seed: int

    @classmethod
    def to_anyone(cls, rows: Indices, num_images: int, seed: int) -> Lending:
        """The same `rows` for each of `num_images`."""
        return cls(rows, np.zeros(num_images, np.int64), np.full(num_images, len(rows)), seed)

    @classmethod
    def to_neighbours(
        cls, nearest: npt.NDArray[np.integer], numbers: Indices, seed: int
    ) -> Lending:
        """The first ``numbers[i]`` of row i of `nearest` (N, k) for image i."""
        members: Indices = nearest[np.arange(nearest.shape[1]) < numbers[:, None]].astype(np.int64)
        return cls(members, np.cumsum(numbers) - numbers, numbers, seed)

    @cached_property
    def rows(self) -> Indices:
        """All images that can be borrowed, each once, ascending."""
        found: Indices = np.unique(self.members)
        return found

    def draw(self, places: Indices, keys: Bits, epoch: int) -> Indices:
        """A row of the pool for each of the target's images `places`, drawn uniformly by its key
        (uint64) and `epoch` alone."""
        share = keyed_uniform(keys, "borrow", self.seed, epoch)
        ranks = (share * self.numbers[places]).astype(np.int64)
        return self.members[self.firsts[places] + ranks]

    def without_rare(self, labels: Indices, least: int) -> Lending:
        """The same without images of classes of which fewer than `least` can be borrowed.

        Where that leaves an image none of its own, it borrows any of those that are left.
        `labels` are those of the pool.  Raises DataError when it leaves none at all.
        """
        counts = np.bincount(labels[self.rows])
        stays = counts[labels[self.members]] >= least
        if not stays.any():
            raise DataError(
                f"no class of the pool has {least} images among the {len(self.rows)} selected",
                where="selection.least_per_class",
                fix="Ask for fewer, or select more",
            )
        before = np.concatenate([[0], np.cumsum(stays)])
        firsts, lasts = before[self.firsts], before[self.firsts + self.numbers]
        kept = self.members[stays]
        left = replace(self, members=kept, firsts=firsts, numbers=lasts - firsts)
        nobody = left.numbers == 0
        return replace(
            left,
            members=np.concatenate([kept, left.rows]),
            firsts=np.where(nobody, len(kept), firsts),
            numbers=np.where(nobody, len(left.rows), left.numbers),
        )


@dataclass(frozen=True)
class Borrowed:
    """The borrowed images in the order of those that borrow them.

    ``order`` is that of the target's training images, which have these ``digests``.
    """

    order: Order
    digests: Bits
    lending: Lending

    def epoch_of(self, step: int) -> int:
        """As the target's order."""
        return self.order.epoch_of(step)

    def batch(self, step: int) -> Indices:
        """The rows of the pool that are borrowed in `step`."""
        places = self.order.batch(step)
        return self.lending.draw(places, self._keys(step, places), self.epoch_of(step))

    def keys(self, step: int, digests: Bits) -> Bits:
        """What draws for the borrowed images of `step` are keyed by: theirs, and who borrows.

        One image that two others borrow at once thus looks different to each.
        """
        return splitmix64(digests ^ splitmix64(self._keys(step, self.order.batch(step))))

    def _keys(self, step: int, places: Indices) -> Bits:
        return self.order.keys(step, self.digests[places])
