"""Glyphs: letters and symbols rendered from TrueType fonts, as many classes as a source may want.

No digits nor what is one in print (Cyrillic Ze); of letters that look alike (Latin, Greek and
Cyrillic A; c and C) only the first.
White on black like handwritten digits.  How a sample is turned, slanted, sized and shifted is drawn
from its character, its font and its number alone.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ftd.errors import DataError
from ftd.files import sha256_of
from ftd.seeds import keyed_hash
from jobs.data.listing import Listing

PACKAGE = "matplotlib"
FOLDER = "matplotlib/mpl-data/fonts/ttf"
STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
FONTS = (  # of the package; each has all the characters
    *(f"DejaVuSans{style}.ttf" for style in STYLES),
    *(f"DejaVuSansMono{style}.ttf" for style in STYLES),
    *(f"DejaVuSerif{style.replace('Oblique', 'Italic')}.ttf" for style in STYLES),
    *("STIXGeneral.ttf", "STIXGeneralBol.ttf"),
)
CHARACTERS = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijlmnqrty"
    "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρστφχψω"
    "БДЖИЙЛЦЧШЩЪЫЬЭЮЯ"
    "&@#$%?!+=<>{}[]*~^§¶©£€¥±÷¿¡«»æðþøåœ½¼¾"
    "∞∂∫√∇∈⊂⊃≠≈≡≤≥←↑→↓↔⇐⇒⇔∀∃∝⊕⊗⊥"
)
SIDE = 56  # pixels of the picture as it is drawn
SIZE = 40  # pixels of the font
BOX = 36  # pixels of a character's longer side, as MNIST's 20 of 28 leave a rim
MAX_TURN = 15.0  # degrees to either side
MAX_SLANT = 0.2
MAX_GROWTH = 0.15  # share of the size, to either side
MAX_SHIFT = 3.0  # pixels to any side
SUFFIXES = (".ttf", ".otf")
NOTHING = "\U0010ffff"  # what no font has: it draws the sign for a missing glyph


def glyphs_listing(folder: Path | None, variants: int) -> Listing:
    """List `variants` pictures of each character in each font, by character and font.

    The fonts are those below `folder`, in the order of their paths, or (None) the package's.
    Characters that a font does not have are left out.  Raises DataError when there are no fonts.
    """
    paths = _package_fonts() if folder is None else _fonts_below(folder)
    fonts = [(path, sha256_of(path)) for path in paths]
    samples = [
        (label, path.stem, digest)
        for label, character in enumerate(CHARACTERS)
        for path, digest in fonts
        if _has(path, character)
    ]
    by_digest = {digest: path for path, digest in fonts}

    def content(index: int) -> bytes:
        label, _, digest = samples[index // variants]
        return json.dumps([CHARACTERS[label], digest, index % variants]).encode()

    def image(data: bytes) -> Image.Image:
        character, digest, number = json.loads(data)
        return _drawn(by_digest[digest], character, (character, digest, number))

    labels = np.array([label for label, _, _ in samples], np.int64)
    return Listing(
        class_names=tuple(CHARACTERS),
        ids=tuple(
            f"{CHARACTERS[label]}/{font}/{number}"
            for label, font, _ in samples
            for number in range(variants)
        ),
        labels=np.repeat(labels, variants),
        content=content,
        image=image,
        where=PACKAGE if folder is None else str(folder),
    )


def _package_fonts() -> list[Path]:
    try:
        root = importlib.metadata.distribution(PACKAGE).locate_file(FOLDER)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            f"package {PACKAGE}, whose fonts are drawn, is not installed",
            fix=f"pip install {PACKAGE}, or name a folder of fonts: folder",
        ) from None
    paths = [Path(str(root)) / name for name in FONTS]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise DataError(f"package {PACKAGE} has no {missing}", fix=f"Install {PACKAGE} again")
    return paths


def _fonts_below(folder: Path) -> list[Path]:
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not paths:
        raise DataError(f"no TrueType or OpenType fonts in {folder}", fix="Name another folder")
    if len({sha256_of(path) for path in paths}) < len(paths):
        raise DataError(f"a font stands twice in {folder}", fix="Remove one of them")
    return paths


@cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    try:
        # the basic layout: another one, where it is installed, would place glyphs otherwise
        return ImageFont.truetype(path, SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DataError(f"{path} is no font ({error})", fix="Remove it") from error


def _has(path: Path, character: str) -> bool:
    font = _font(path)
    return bytes(font.getmask(character)) != bytes(font.getmask(NOTHING))


def _drawn(path: Path, character: str, identity: tuple[str, str, int]) -> Image.Image:
    """The character in the middle of the picture, its longer side `BOX`, then moved as its
    identity says."""
    left, top, right, bottom = map(round, _font(path).getbbox(character))
    width, height = right - left, bottom - top
    ink = Image.new("L", (width, height))
    ImageDraw.Draw(ink).text((-left, -top), character, fill=255, font=_font(path))
    turn, slant, growth, across, down = (
        2 * keyed_hash("glyph", name, *identity) / 2**63 - 1
        for name in ("turn", "slant", "growth", "across", "down")
    )
    angle = math.radians(MAX_TURN * turn)
    scale = (1 + MAX_GROWTH * growth) * BOX / max(width, height)
    # where each pixel comes from: back to the middle, unturned, unslanted
    a, b = math.cos(angle) / scale, math.sin(angle) / scale
    c, d = -b + MAX_SLANT * slant * a, a + MAX_SLANT * slant * b
    x, y = SIDE / 2 + MAX_SHIFT * across, SIDE / 2 + MAX_SHIFT * down
    matrix = (a, c, width / 2 - a * x - c * y, b, d, height / 2 - b * x - d * y)
    return ink.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
