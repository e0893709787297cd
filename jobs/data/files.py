"""Images that are files of a folder: their bytes, and what may decode them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ftd.errors import DataError
from ftd.regular import read_bytes

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
# What a file holds is found out from its bytes, whatever its name; Pillow hands some other formats
# (PostScript) to programs that execute them.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MAX_IMAGE_BYTES = 1 << 30  # Pillow refuses to decode more than that anyway


def images_below(folder: Path) -> list[str]:
    """Paths of all files in and below `folder` that are called like images, hidden ones left out.

    Raises OSError for a folder that cannot be read (it would be listed as an empty one otherwise),
    DataError for folders nested too deep.
    """
    try:
        return [
            os.path.join(parent, name)
            for parent, _, names in os.walk(folder, onerror=_fail)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    except RecursionError:
        raise DataError(f"folders below {folder} are nested too deep", fix="Name one") from None


def _fail(error: OSError) -> None:
    raise error


def content_of(root: Path, paths: Sequence[str]) -> Callable[[int], bytes]:
    """The bytes of the i-th of `paths` below `root`; raises OSError for what is no regular file."""
    return lambda index: read_bytes(root / paths[index], MAX_IMAGE_BYTES)


def image_of(content: bytes) -> Image.Image:
    """An image of one of the known formats; raises what Pillow raises."""
    return Image.open(io.BytesIO(content), formats=FORMATS)
