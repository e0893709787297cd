"""Samples of a dataset in an order, cut into shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from jobs.data.images import Images
from jobs.data.keyed import Bits, Indices

SHARD = 256  # images: whole batches, and little enough work to lose


@dataclass(frozen=True)
class Samples:
    """Samples of a dataset; ``indices`` (int64, N) are distinct."""

    images: Images
    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def digests(self) -> Bits:
        """Of their content: uint64, N."""
        return self.images.digests[self.indices]

    @property
    def pixels_sha256(self) -> str:
        """Of what is seen of them."""
        return hashlib.sha256(self.images.pixel_digests[self.indices].tobytes()).hexdigest()

    @property
    def shards(self) -> list[Samples]:
        """The same, SHARD at a time."""
        parts = np.split(self.indices, range(SHARD, len(self), SHARD))
        return [Samples(self.images, part) for part in parts]
