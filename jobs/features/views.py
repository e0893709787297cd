"""Ways to look at an image: the whole of it, parts, mirrored, turned.

The sixteen of "CNN features off-the-shelf" (Razavian et al. 2014): the image, five crops of 4/9 of
its area (corners and centre) and two rotations, each also mirrored.  The angle is not told there:
`ANGLE` is ours, and what a rotation leaves empty is cut off rather than filled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jobs.data.keyed import Bits
from jobs.data.pixels import INTERPOLATIONS

if TYPE_CHECKING:
    from jobs.data.augment import Look, Views

ANGLE = 10.0  # degrees
SIDE = 2 / 3  # of a crop of 4/9 of the area
_BLURRED = 2  # pixels that interpolation mixes with what is empty, on both sides together


@dataclass(frozen=True)
class View:
    """One way to look at images.

    ``look(decode_size, crop_size, digests, interpolation)`` says how the images with these sample
    digests (uint64, N) are looked at.  ``name`` tells it from every other one for ever.
    """

    name: str
    look: Look


def _whole(decode_size: int, crop_size: int, digests: Bits, _interpolation: str) -> Views:
    from jobs.data.augment import central  # imports torch, which whoever names a view need not have

    return central(decode_size, crop_size, len(digests))


ORIGINAL = View("original", _whole)  # as images are validated and tested


def part(name: str, top: float, left: float, side: float) -> View:
    """A square part of the image, all in shares of its side, resized to what the network sees."""

    def look(decode_size: int, crop_size: int, digests: Bits, interpolation: str) -> Views:
        length = max(1, round(side * decode_size))
        box = [
            min(round(top * decode_size), decode_size - length),
            min(round(left * decode_size), decode_size - length),
            length,
            length,
        ]
        boxes = np.tile(np.array(box, np.int64), (len(digests), 1))
        views = _whole(decode_size, crop_size, digests, interpolation)
        return replace(views, boxes=boxes, interpolation=interpolation)

    return View(name, look)


def turned(name: str, angle: float) -> View:
    """The largest upright square inside the image turned by `angle` degrees counter-clockwise."""

    def look(decode_size: int, crop_size: int, digests: Bits, interpolation: str) -> Views:
        kind = INTERPOLATIONS[interpolation]

        def turn(image: Image.Image, _row: int) -> Image.Image:
            size = image.width
            turn_by = math.radians(abs(angle))
            inner = size / (math.cos(turn_by) + math.sin(turn_by))
            inner -= _BLURRED if angle else 0
            near, far = (size - inner) / 2, (size + inner) / 2
            whole = image.rotate(angle, kind)
            return whole.resize((size, size), kind, box=(near, near, far, far))

        views = _whole(decode_size, crop_size, digests, interpolation)
        return replace(views, retouches=(turn,))

    return View(name, look)


def mirrored(view: View) -> View:
    """`view` of the mirrored image, for a part or rotation: of what it shows."""

    def look(decode_size: int, crop_size: int, digests: Bits, interpolation: str) -> Views:
        views = view.look(decode_size, crop_size, digests, interpolation)
        return replace(views, flipped=~views.flipped)

    return View(f"{view.name} mirrored", look)


def _sixteen() -> tuple[View, ...]:
    far = 1 - SIDE
    places = {
        "top left": (0.0, 0.0), "top right": (0.0, far), "bottom left": (far, 0.0),
        "bottom right": (far, far), "centre": (far / 2, far / 2),
    }  # fmt: skip
    upright = (
        ORIGINAL,
        *(part(f"4/9 {name}", top, left, SIDE) for name, (top, left) in places.items()),
        turned(f"turned by {ANGLE:g}", ANGLE),
        turned(f"turned by {-ANGLE:g}", -ANGLE),
    )
    return (*upright, *(mirrored(view) for view in upright))


SIXTEEN = _sixteen()
