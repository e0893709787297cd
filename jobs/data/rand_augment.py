"""RandAugment: operations per (seed, epoch, sample digest), all of one strength.

Operations, their ranges and signs are those of torchvision's RandAugment (Cubuk et al. 2020):
`num_ops` times one of 14, uniformly; nearest neighbours, black where nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from jobs.data.keyed import Bits, Indices, keyed_bits, keyed_choice
from jobs.params.augment import RandAugmentParams

MOST = 30  # magnitudes are 0 to this

Operation = Callable[[Image.Image, float], Image.Image]


def _moved(image: Image.Image, *inverse: float) -> Image.Image:
    """`image` under the affine map whose inverse is given, as Pillow wants it."""
    affine = Image.Transform.AFFINE
    return image.transform(image.size, affine, inverse, Image.Resampling.NEAREST)


# Each with its greatest strength; those in SIGNED go both ways.
OPERATIONS: dict[str, tuple[float, Operation]] = {
    "Identity": (0, lambda image, _: image),
    "ShearX": (0.3, lambda image, m: _moved(image, 1, m, 0, 0, 1, 0)),
    "ShearY": (0.3, lambda image, m: _moved(image, 1, 0, 0, m, 1, 0)),
    "TranslateX": (
        150 / 331,
        lambda image, m: _moved(image, 1, 0, -int(m * image.width), 0, 1, 0),
    ),
    "TranslateY": (
        150 / 331,
        lambda image, m: _moved(image, 1, 0, 0, 0, 1, -int(m * image.height)),
    ),
    "Rotate": (30, lambda image, m: image.rotate(m, Image.Resampling.NEAREST)),
    "Brightness": (0.9, lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m)),
    "Color": (0.9, lambda image, m: ImageEnhance.Color(image).enhance(1 + m)),
    "Contrast": (0.9, lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m)),
    "Sharpness": (0.9, lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m)),
    "Posterize": (4, lambda image, m: ImageOps.posterize(image, 8 - round(m))),
    "Solarize": (255, lambda image, m: ImageOps.solarize(image, math.ceil(255 - m))),
    "AutoContrast": (0, lambda image, _: ImageOps.autocontrast(image)),
    "Equalize": (0, lambda image, _: ImageOps.equalize(image)),
}
SIGNED = (
    "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate",
    "Brightness", "Color", "Contrast", "Sharpness",
)  # fmt: skip
NAMES = tuple(OPERATIONS)


@dataclass(frozen=True)
class Chosen:
    """Operations (int64, (N, num_ops)) on N images, and whether they go the other way."""

    operations: Indices
    negative: npt.NDArray[np.bool_]
    magnitude: int

    def __call__(self, image: Image.Image, row: int) -> Image.Image:
        """Image `row` as it is looked at."""
        drawn = zip(self.operations[row].tolist(), self.negative[row].tolist(), strict=True)
        for which, negative in drawn:
            image = operated(image, NAMES[which], self.magnitude, negative)
        return image


def rand_augment(digests: Bits, wanted: RandAugmentParams, seed: int, epoch: int) -> Chosen:
    """What happens to the samples `digests` (uint64, N) in `epoch`."""

    def key(what: str, place: int) -> tuple[str | int, ...]:
        return "rand_augment", what, place, seed, epoch

    places = range(wanted.num_ops)
    operations = [keyed_choice(digests, len(NAMES), *key("op", place)) for place in places]
    signs = [keyed_bits(digests, *key("sign", place)) & np.uint64(1) for place in places]
    return Chosen(
        np.stack(operations, axis=1), np.stack(signs, axis=1).astype(np.bool_), wanted.magnitude
    )


def operated(image: Image.Image, name: str, magnitude: int, negative: bool) -> Image.Image:
    """An RGB `image` after one operation of `magnitude` 0 to 30."""
    greatest, operation = OPERATIONS[name]
    strength = greatest * magnitude / MOST
    return operation(image, -strength if negative and name in SIGNED else strength)
