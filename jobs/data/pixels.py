"""One image of any kind as a square of RGB bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from jobs.manifest import Box

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


def square(
    image: Image.Image, size: int, interpolation: str, part: Box | None = None
) -> npt.NDArray[np.uint8]:
    """`image` upright, its shorter side resized to `size`, its centre: uint8 (size, size, 3).

    With `part` (left, top, right, bottom in pixels of the upright image), that of this part.
    Raises what Pillow raises for damaged files, ValueError for pixels that are no colours and for
    a part that is not inside the image.
    """
    upright = rgb(ImageOps.exif_transpose(image))
    if part is not None:
        if part[2] > upright.width or part[3] > upright.height:
            raise ValueError(f"its box ends beyond its {upright.width} x {upright.height} pixels")
        upright = upright.crop(part)
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(upright.resize((size, size), INTERPOLATIONS[interpolation], box=box))


def rgb(image: Image.Image) -> Image.Image:
    """`image` as 8-bit RGB: 16 bits lose their lower half, transparent parts become white."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        grey = np.asarray(image, dtype=np.int64) >> 8
        if grey.min() < 0 or grey.max() > 255:
            raise ValueError("pixels of more than 16 bits")
        image = Image.fromarray(grey.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, not colours")
    if image.mode in TRANSPARENT or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")
