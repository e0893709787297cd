"""Small pictures put side by side and below one another, with captions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP = 8  # pixels between parts of a picture
TEXT_SIZE = 14
INK, FAINT, NOTHING, PAPER = "#222222", "#bbbbbb", "#eeeeee", "#ffffff"


def font(size: int = TEXT_SIZE) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all captions, which comes with Pillow."""
    return ImageFont.load_default(size)


def beside(parts: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """`parts` from left to right, their top edges aligned."""
    width = sum(part.width for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (width, max(part.height for part in parts)), PAPER)
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + gap
    return whole


def below(parts: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """`parts` from top to bottom, their left edges aligned."""
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (max(part.width for part in parts), height), PAPER)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + gap
    return whole


def framed(part: Image.Image, margin: int = 2 * GAP) -> Image.Image:
    """`part` with a margin of paper around it."""
    whole = Image.new("RGB", (part.width + 2 * margin, part.height + 2 * margin), PAPER)
    whole.paste(part, (margin, margin))
    return whole


def written(text: str, width: int | None = None, colour: str = INK) -> Image.Image:
    """One line of text; cut off at `width` pixels, or as wide as it needs to be."""
    needed = int(font().getlength(text)) + 2
    line = Image.new("RGB", (max(1, needed if width is None else width), TEXT_SIZE + 4), PAPER)
    ImageDraw.Draw(line).text((0, 1), text, fill=colour, font=font())
    return line


def captioned(caption: str, part: Image.Image) -> Image.Image:
    """`part` below a line of text."""
    return below([written(caption, max(part.width, int(font().getlength(caption)) + 2)), part], 2)
