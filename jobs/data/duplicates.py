"""Pictures that are in two sets: the same pixels, or nearly the same picture.

A training image that is also tested on makes the test easier than it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from jobs.data.images import Images
from jobs.data.keyed import Indices
from jobs.data.perceptual import NEAR_BITS, has_near
from jobs.data.splits import Splits

PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
NUM_EXAMPLES = 5

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Twins:
    """Of some samples, which are identical to, or only near (not identical to), one of others."""

    identical: Mask
    near: Mask

    @property
    def any(self) -> Mask:
        """Either."""
        return self.identical | self.near


def twins(images: Images, indices: Indices, others: Indices, *, of: Images | None = None) -> Twins:
    """The samples `indices` compared with the samples `others` (boolean masks over `indices`).

    The others are those `of` another dataset, decoded to the same size, or of the same one.
    Identical: equal digests of the decoded pixels.  Near: perceptual hashes that differ in at most
    NEAR_BITS of 64 bits.
    """
    of = of or images
    identical = np.isin(images.pixel_digests[indices], of.pixel_digests[others])
    near = has_near(images.hashes[indices], of.hashes[others])
    return Twins(identical, near & ~identical)


def without_twins(images: Images, splits: Splits) -> Splits:
    """`splits` without the training images that have a twin in validation or test.

    Raises DataError when that leaves none of a class.
    """
    held_out = np.concatenate([splits.val, splits.test])
    left = splits.train[~twins(images, splits.train, held_out).any]
    listing = images.listing
    before, after = (listing.images_per_class(train) for train in (splits.train, left))
    gone = np.flatnonzero((before > 0) & (after == 0))
    if len(gone):
        raise DataError(
            f"no training image of class {listing.class_names[gone[0]]} is left: all of them, or "
            "nearly the same pictures, are also validated or tested on",
            where=listing.where,
            fix="Use target.duplicates: report, or split in another way",
        )
    return replace(splits, train=left)


@dataclass(frozen=True)
class Report:
    """How many images of the second set of each pair have a twin in the first."""

    identical: Mapping[str, int]  # "test in train" -> images
    near: Mapping[str, int]
    examples: tuple[str, ...]  # ids of a few of them

    @classmethod
    def of(cls, images: Images, splits: Splits) -> Report:
        """What there is between `splits`."""
        identical, near, examples = {}, {}, []
        sets = splits.by_name()
        for first, second in PAIRS:
            found = twins(images, sets[second], sets[first])
            identical[f"{second} in {first}"] = int(found.identical.sum())
            near[f"{second} in {first}"] = int(found.near.sum())
            examples += [images.listing.ids[i] for i in sets[second][found.any][:NUM_EXAMPLES]]
        return cls(identical, near, tuple(examples[:NUM_EXAMPLES]))

    def as_note(self) -> dict[str, Any]:
        """For the run's history."""
        return {
            "identical": dict(self.identical),
            "near": dict(self.near),
            "near_bits": NEAR_BITS,
            "examples": list(self.examples),
        }

    def metrics(self) -> dict[str, float]:
        """For the run's results: test images that training images give away."""
        return {
            "data/identical_in_train": float(self.identical["test in train"]),
            "data/near_in_train": float(self.near["test in train"]),
        }
