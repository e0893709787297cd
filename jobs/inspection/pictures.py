"""What fine-tuning changes, to look at: filters, images that excite a unit, a map of the images."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from jobs.inspection.canvas import (
    FAINT,
    GAP,
    NOTHING,
    PAPER,
    TEXT_SIZE,
    below,
    beside,
    captioned,
    font,
    framed,
    written,
)

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

FILTER_SIDE = 32  # pixels, at least, of one filter
IMAGE_SIDE = 72  # pixels of one image that excites a unit
MAP_SIDE = 480  # pixels of one map of images
MAX_LEGEND = 30  # classes that are named
_FINER = 4  # maps are drawn so much larger, then reduced: smooth edges


def filter_sheet(before: Floats, after: Floats) -> Image.Image:
    """The filters (C, 3, h, w) of a first layer before and after, and the difference.

    Grey is 0; each filter has one scale before and after, the difference one scale for all, whose
    factor is said.
    """
    size = np.maximum(np.abs(before), np.abs(after)).max(axis=(1, 2, 3), keepdims=True)
    size = np.where(size > 0, size, 1)
    change = (after - before) / size
    largest = float(np.abs(change).max()) or 1.0
    sheets = {
        "before": before / size,
        "after": after / size,
        f"difference x {1 / largest:.3g}": change / largest,
    }
    return framed(beside([captioned(name, _sheet(one)) for name, one in sheets.items()], 2 * GAP))


def _sheet(filters: Floats) -> Image.Image:
    """Filters (C, 3, h, w) in -1..1 in about a square."""
    shown = np.rint(127.5 * (1 + filters)).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    factor = -(-FILTER_SIDE // max(shown.shape[1:3]))
    per_row = int(np.ceil(np.sqrt(len(shown))))
    tiles = [
        Image.fromarray(one).resize(
            (one.shape[1] * factor, one.shape[0] * factor), Image.Resampling.NEAREST
        )
        for one in shown
    ]
    rows = [beside(tiles[start : start + per_row], 2) for start in range(0, len(tiles), per_row)]
    return below(rows, 2)


@dataclass(frozen=True)
class Excited:
    """A unit, and the images (H, W, 3) that excite it most before and after, the first most.

    There may be few or none.
    """

    name: str
    before: Sequence[Pixels]
    after: Sequence[Pixels]


def top_images(units: Sequence[Excited], num_images: int) -> Image.Image:
    """A row for each unit: its name, `num_images` images before, as many after."""
    names = [written(unit.name) for unit in units]
    width = max(name.width for name in names)
    rows = [
        beside([name, *(strip(images, num_images) for images in (unit.before, unit.after))])
        for name, unit in zip((written(unit.name, width) for unit in units), units, strict=True)
    ]
    wide = num_images * (IMAGE_SIDE + 2)
    head = beside([written("", width), written("before", wide), written("after", wide)])
    return framed(below([head, *rows]))


def strip(images: Sequence[Pixels], count: int) -> Image.Image:
    """Images (H, W, 3) side by side, and room for those that are missing to `count`."""
    size = (IMAGE_SIDE, IMAGE_SIDE)
    shown = [Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in images]
    return beside([*shown, *[Image.new("RGB", size, NOTHING)] * (count - len(shown))], 2)


def image_map(places: Mapping[str, Floats], labels: Labels, names: Sequence[str]) -> Image.Image:
    """Images as points (N, 2), a map for each title, coloured by their class (int64, N)."""
    colours = [class_colour(label, len(names)) for label in range(len(names))]
    maps = [
        captioned(title, _points(points, [colours[label] for label in labels]))
        for title, points in places.items()
    ]
    return framed(beside([*maps, _legend(names, colours)], 2 * GAP))


def class_colour(label: int, num_classes: int) -> str:
    """The colour of a class: hues around the circle, every other one darker."""
    value = 0.85 if label % 2 == 0 else 0.6
    red, green, blue = colorsys.hsv_to_rgb(label / max(num_classes, 1), 0.75, value)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _points(points: Floats, colours: Sequence[str]) -> Image.Image:
    side, radius = MAP_SIDE * _FINER, 3.5 * _FINER
    canvas = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(canvas)
    low, high = points.min(axis=0), points.max(axis=0)
    span = float((high - low).max()) or 1.0
    placed = (points - (low + high) / 2) / span * (side - 6 * radius) + side / 2
    for (x, y), colour in zip(placed.tolist(), colours, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    reduced = canvas.resize((MAP_SIDE, MAP_SIDE), Image.Resampling.BOX)
    ImageDraw.Draw(reduced).rectangle((0, 0, MAP_SIDE - 1, MAP_SIDE - 1), outline=FAINT)
    return reduced


def _legend(names: Sequence[str], colours: Sequence[str]) -> Image.Image:
    shown = list(names[:MAX_LEGEND])
    more = [f"and {len(names) - MAX_LEGEND} more"] if len(names) > MAX_LEGEND else []
    line = TEXT_SIZE + 4
    width = int(max(font().getlength(text) for text in [*shown, *more])) + line + GAP
    legend = Image.new("RGB", (width, line * (len(shown) + len(more))), PAPER)
    draw = ImageDraw.Draw(legend)
    for row, name in enumerate(shown):
        top = row * line
        draw.ellipse((2, top + 4, 12, top + 14), fill=colours[row])
        draw.text((line, top + 1), name, fill="#222222", font=font())
    if more:
        draw.text((line, len(shown) * line + 1), more[0], fill="#222222", font=font())
    return legend
