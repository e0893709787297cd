"""Colour jitter: factors and their order per (seed, epoch, sample digest).

The definition is torchvision's ColorJitter: each of brightness, contrast and saturation times a
factor uniform in [max(0, 1 - x), 1 + x], the hue shifted by a share of the circle uniform in
[-x, x], in an order drawn anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from jobs.data.keyed import Bits, Indices, keyed_bits, keyed_uniform
from jobs.params.augment import ColourParams

PROPERTIES = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Jitter:
    """What happens to each of N images: values (float64, (N, 4)) of the PROPERTIES, and the order
    (int64, (N, 4)) in which they change."""

    values: npt.NDArray[np.float64]
    order: Indices
    is_on: tuple[bool, ...]

    def __call__(self, image: Image.Image, row: int) -> Image.Image:
        """Image `row` as it is looked at."""
        for which in self.order[row].tolist():
            if self.is_on[which]:
                image = adjusted(image, PROPERTIES[which], float(self.values[row, which]))
        return image


def jitter(digests: Bits, wanted: ColourParams, seed: int, epoch: int) -> Jitter:
    """The jitter of the samples `digests` (uint64, N) in `epoch`."""
    values, places = [], []
    for name in PROPERTIES:
        strength = getattr(wanted, name)
        low, high = (-strength, strength) if name == "hue" else (max(0, 1 - strength), 1 + strength)
        values.append(low + (high - low) * keyed_uniform(digests, name, seed, epoch))
        places.append(keyed_bits(digests, "order of", name, seed, epoch))
    return Jitter(
        np.stack(values, axis=1),
        np.argsort(np.stack(places, axis=1), axis=1, kind="stable"),
        tuple(getattr(wanted, name) > 0 for name in PROPERTIES),
    )


def adjusted(image: Image.Image, which: str, value: float) -> Image.Image:
    """An RGB `image` with one property changed: by a factor, the hue by a share of the circle."""
    match which:
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(value)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(value)
        case "saturation":
            return ImageEnhance.Color(image).enhance(value)
        case _:
            hue, saturation, brightness = image.convert("HSV").split()
            shift = np.uint8(int(value * 255) % 256)
            turned = Image.fromarray(np.asarray(hue) + shift)  # bytes wrap around, as the hue does
            return Image.merge("HSV", (turned, saturation, brightness)).convert("RGB")
