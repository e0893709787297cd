"""Flips and crops: functions of (seed, epoch, sample digest), each with draws of its own.

Using one never changes what another draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.data.keyed import Bits, keyed_bits


@dataclass(frozen=True)
class Views:
    """How each of N images is looked at: crop offsets in pixels (int64), and mirrored or not."""

    top: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    flipped: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to training images of `decode_size` on their way to `crop_size` pixels."""

    decode_size: int
    crop_size: int
    flip: bool
    random_crop: bool
    seed: int

    def views(self, epoch: int, digests: Bits) -> Views:
        """The views of the samples `digests` (uint64, N) in `epoch`."""
        centre = central(self.decode_size, self.crop_size, len(digests))
        top, left, flipped = centre.top, centre.left, centre.flipped
        if self.random_crop:
            bits = keyed_bits(digests, "crop", self.seed, epoch)
            places = np.uint64(self.decode_size - self.crop_size + 1)
            # 32 random bits times the number of places: uniform to 1 in a million.
            top = ((bits >> np.uint64(32)) * places >> np.uint64(32)).astype(np.int64)
            left = ((bits & np.uint64(0xFFFFFFFF)) * places >> np.uint64(32)).astype(np.int64)
        if self.flip:
            flipped = (keyed_bits(digests, "flip", self.seed, epoch) & np.uint64(1)) == 1
        return Views(top, left, flipped)


def central(decode_size: int, crop_size: int, num_images: int) -> Views:
    """The centre of every image, not mirrored: how images are validated and tested."""
    offset = np.full(num_images, (decode_size - crop_size) // 2, dtype=np.int64)
    return Views(offset, offset, np.zeros(num_images, dtype=np.bool_))
