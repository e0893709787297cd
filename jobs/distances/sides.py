"""The two sets of images that are compared: which ones, and in which order.

Sets are ordered by their content, not by who is called source, so that a pair is one pair whichever
way round it is asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import PIL

from ftd.errors import DataError
from jobs.data.images import Images, Pixels
from jobs.data.keyed import Bits, Indices
from jobs.data.prepare import Data
from jobs.distances.halves import apart, chosen

FEWEST = 8


@dataclass(frozen=True)
class Side:
    """Some training images of a dataset: ``indices`` (int64, N), in the order of their digests."""

    images: Images
    indices: Indices
    crop_size: int
    interpolation: str

    @property
    def digests(self) -> Bits:
        """Of the images' content: uint64, N."""
        return self.images.digests[self.indices]

    @property
    def sha256(self) -> str:
        """What the network is shown: content of the images, and how they are resized."""
        shown = [self.images.size, self.crop_size, self.interpolation, PIL.__version__]
        return hashlib.sha256(self.digests.tobytes() + json.dumps(shown).encode()).hexdigest()

    @property
    def labels_sha256(self) -> str:
        """Of the images' labels."""
        labels = self.images.listing.labels[self.indices]
        return hashlib.sha256(labels.tobytes()).hexdigest()

    def pixels(self, index: int) -> Pixels:
        """What a network is shown of the image `index`: its centre, (crop_size, crop_size, 3)."""
        edge = (self.images.size - self.crop_size) // 2
        whole = self.images.pixels(index)
        return whole[edge : edge + self.crop_size, edge : edge + self.crop_size]

    def of(self, members: Indices) -> Side:
        """Those at the places `members`."""
        return Side(self.images, self.indices[members], self.crop_size, self.interpolation)


def training_side(data: Data, crop_size: int, interpolation: str) -> Side:
    """All training images of a dataset."""
    indices = data.splits.train
    ordered = indices[np.argsort(data.images.digests[indices])]
    return Side(data.images, ordered, crop_size, interpolation)


def limited(side: Side, num_images: int, seed: int) -> Side:
    """`num_images` of them at most, drawn by content."""
    return side.of(chosen(side.digests, num_images, seed))


def paired(one: Side, other: Side, num_images: int, seed: int) -> tuple[Side, Side]:
    """Equally many images of both sides, `num_images` at most, none on both; ordered by content.

    Raises DataError when there are too few.
    """
    first, second = sorted((one, other), key=lambda side: side.sha256)
    in_first, in_second = apart(first.digests, second.digests, seed)
    first, second = first.of(in_first), second.of(in_second)
    fewest = min(len(first.indices), len(second.indices))
    if fewest < FEWEST:
        lacking = min(first, second, key=lambda side: len(side.indices))
        raise DataError(
            f"{len(lacking.indices)} training images are too few to compare",
            where=lacking.images.listing.where,
            fix=f"At least {FEWEST} are needed that the other side does not have too",
        )
    count = min(fewest, num_images)
    return limited(first, count, seed), limited(second, count, seed)


def shared(one: Side, other: Side) -> int:
    """How many images both have."""
    return len(np.intersect1d(one.digests, other.digests))
