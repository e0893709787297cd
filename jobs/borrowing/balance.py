"""Class balancing in the batch: a class that is there too often makes room for absent ones.

Ge, Yu: Borrowing treasures from the wealthy (CVPR 2017), code: where a class occurs more than twice
in the target's half of a batch, the images beyond are replaced by ones of classes that are absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ftd.seeds import keyed_hash
from jobs.data.keyed import Bits, Indices, keyed_order, splitmix64
from jobs.data.order import Order

MOST = 2  # images of a class in a batch


@dataclass
class BalancedBatches(Order):
    """The batches of ``plain``, balanced by class; ``labels`` (int64, N) are the samples'.

    Absent classes take turns in an order drawn by class and step, each at most MOST times; which of
    its images comes is drawn likewise.  Where no class is absent, images beyond MOST stay.
    """

    plain: Order = field(kw_only=True)
    labels: Indices = field(kw_only=True)

    def batch(self, step: int) -> Indices:
        """The positions (0..N-1) that make up the batch of `step`."""
        return self._replaced(step)[0]

    def keys(self, step: int, digests: Bits) -> Bits:
        """As those of the plain order; what came instead of others has keys of this step alone."""
        came = self._replaced(step)[1]
        plain = self.plain.keys(step, np.where(came, 0, digests))
        own = splitmix64(digests ^ np.uint64(keyed_hash("balance", self.seed, step)))
        return np.where(came, own, plain)

    def _replaced(self, step: int) -> tuple[Indices, npt.NDArray[np.bool_]]:
        """The batch, and which of its images came instead of others."""
        batch = self.plain.batch(step).copy()
        labels = self.labels[batch]
        extra = np.zeros(len(batch), np.bool_)
        for label in np.unique(labels).tolist():
            extra[np.flatnonzero(labels == label)[MOST:]] = True
        coming = self._absent(np.unique(labels), step)[: extra.sum()]
        places = np.flatnonzero(extra)[: len(coming)]
        batch[places] = coming
        came = np.zeros(len(batch), np.bool_)
        came[places] = True
        return batch, came

    def _absent(self, present: Indices, step: int) -> Indices:
        """Images of the classes that are not `present`, in the order in which they come."""
        absent = np.setdiff1d(np.unique(self.labels), present).tolist()
        absent.sort(key=lambda label: keyed_hash("balance", self.seed, step, label))
        members = []
        for label in absent:
            own = np.flatnonzero(self.labels == label)
            members.append(own[keyed_order(self.digests[own], "balance", self.seed, step)][:MOST])
        turns = [own[turn] for turn in range(MOST) for own in members if turn < len(own)]
        return np.array(turns, np.int64)
