"""How training images are looked at: functions of (seed, epoch, sample digest), each with draws of
its own.

Using one never changes what another draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from jobs.data.colour import jitter
from jobs.data.keyed import Bits, Indices, keyed_bits
from jobs.data.mixing import Mix, mixed
from jobs.data.rand_augment import rand_augment
from jobs.data.resized_crop import crop_boxes
from jobs.params.augment import AugmentParams

Retouch = Callable[[Image.Image, int], Image.Image]  # an image and its row -> as it is looked at


@dataclass(frozen=True)
class Views:
    """How each of N images is looked at: crop offsets in pixels (int64), and mirrored or not.

    ``boxes`` (int64, (N, 4): top, left, height, width), where there are any, are resized instead
    of cropping.  ``retouches`` come last, one after the other.
    """

    top: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    flipped: npt.NDArray[np.bool_]
    boxes: Indices | None = None
    interpolation: str = "bilinear"
    retouches: tuple[Retouch, ...] = ()


# (decode_size, crop_size, sample digests, interpolation) -> how to look at these images
Look = Callable[[int, int, Bits, str], Views]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to training images of `decode_size` on their way to `crop_size` pixels."""

    decode_size: int
    crop_size: int
    flip: bool
    random_crop: bool
    seed: int
    more: AugmentParams = field(default_factory=AugmentParams)
    interpolation: str = "bilinear"

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
        boxes = None
        if self.more.resized_crop is not None:
            boxes = crop_boxes(digests, self.more.resized_crop, self.decode_size, self.seed, epoch)
        return Views(top, left, flipped, boxes, self.interpolation, self._retouches(epoch, digests))

    def mix(self, epoch: int, digests: Bits) -> Mix | None:
        """How a batch of the samples `digests` (uint64, N) is mixed in `epoch`, if at all."""
        return mixed(digests, self.more, self.crop_size, self.seed, epoch)

    def _retouches(self, epoch: int, digests: Bits) -> tuple[Retouch, ...]:
        found: list[Retouch] = []
        if self.more.rand_augment is not None:
            found.append(rand_augment(digests, self.more.rand_augment, self.seed, epoch))
        if self.more.colour is not None:
            found.append(jitter(digests, self.more.colour, self.seed, epoch))
        return tuple(found)


def central(decode_size: int, crop_size: int, num_images: int) -> Views:
    """The centre of every image, not mirrored: how images are validated and tested."""
    offset = np.full(num_images, (decode_size - crop_size) // 2, dtype=np.int64)
    return Views(offset, offset, np.zeros(num_images, dtype=np.bool_))
