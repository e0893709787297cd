"""Random parts of images, resized: a box per (seed, epoch, sample digest).

The definition is torchvision's RandomResizedCrop (after Szegedy et al. 2015): an area uniform in
`scale`, a ratio log-uniform in `ratio`, the box uniform among those that fit; ten tries, then the
largest central box of an allowed ratio.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from jobs.data.keyed import Bits, Indices, keyed_uniform
from jobs.data.pixels import INTERPOLATIONS
from jobs.params.augment import ResizedCropParams

Floats = npt.NDArray[np.float64]

NUM_TRIES = 10


def crop_boxes(
    digests: Bits, wanted: ResizedCropParams, decode_size: int, seed: int, epoch: int
) -> Indices:
    """Boxes (int64, (N, 4)) in images of `decode_size`: top, left, height, width in pixels."""
    boxes = np.tile(_fallback(wanted, decode_size), (len(digests), 1))
    missing = np.arange(len(digests))
    for attempt in range(NUM_TRIES):
        chosen = digests[missing]

        def draw(what: str, chosen: Bits = chosen, attempt: int = attempt) -> Floats:
            return keyed_uniform(chosen, "resized_crop", what, seed, epoch, attempt)

        least, greatest = wanted.scale
        area = decode_size**2 * (least + (greatest - least) * draw("area"))
        low, high = math.log(wanted.ratio[0]), math.log(wanted.ratio[1])
        ratio = np.exp(low + (high - low) * draw("ratio"))
        width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (width > 0) & (width <= decode_size) & (height > 0) & (height <= decode_size)
        top = (draw("top") * (decode_size - height + 1)).astype(np.int64)
        left = (draw("left") * (decode_size - width + 1)).astype(np.int64)
        boxes[missing[fits]] = np.stack([top, left, height, width], axis=1)[fits]
        missing = missing[~fits]
    return boxes


def resized(
    pixels: npt.NDArray[np.uint8], box: tuple[int, int, int, int], size: int, interpolation: str
) -> npt.NDArray[np.uint8]:
    """The `box` of an image (uint8, (H, W, 3)), resized to a square of `size` pixels."""
    top, left, height, width = box
    part = Image.fromarray(pixels[top : top + height, left : left + width])
    return np.asarray(part.resize((size, size), INTERPOLATIONS[interpolation]))


def _fallback(wanted: ResizedCropParams, size: int) -> Indices:
    low, high = wanted.ratio
    height = width = size
    if low > 1:
        height = round(width / low)
    elif high < 1:
        width = round(height * high)
    return np.array([(size - height) // 2, (size - width) // 2, height, width], dtype=np.int64)
