"""What is on record about a network's published weights: their file, and the images they expect.

For built-in networks from a table that ``python -m jobs.models.table`` generates, for timm's from
:mod:`jobs.timm_names`.  Knows no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ftd.errors import InputError
from jobs.layers import numbered
from jobs.timm_names import described, is_timm

TABLE = Path(__file__).parent / "models" / "imagenet.json"

Interpolation = Literal["bilinear", "bicubic"]
Channels = tuple[float, float, float]

# What most records say; the table holds what differs.
USUAL: dict[str, Any] = {
    "file": None,
    "package": None,
    "hub": None,
    "url": None,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
    "resize": 256,
    "crop": 224,
    "least": 1,
    "only": False,
}


@dataclass(frozen=True)
class Preprocessing:
    """What images a network expects: RGB in 0..1, then ``(x - mean) / std`` per channel."""

    mean: Channels
    std: Channels
    interpolation: Interpolation

    @property
    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}


@dataclass(frozen=True)
class Record:
    """Published weights, and the images they were tested on.

    ``file`` comes with the distribution ``package``, from the Hugging Face ``hub`` or from ``url``;
    a file in torch's download folder carries the first digits of its SHA-256 in its name.  None:
    there are no published weights.  Images were resized to ``resize`` pixels and cropped to
    ``crop``.
    """

    file: str | None
    package: str | None
    hub: str | None
    url: str | None
    preprocessing: Preprocessing
    resize: int
    crop: int
    least: int  # pixels: smaller images leave nothing of the picture
    only: bool  # the network takes images of ``crop`` pixels and no others

    @property
    def exists(self) -> bool:
        """Whether there are published weights."""
        return self.file is not None or self.hub is not None


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads(TABLE.read_text())
    return table


def record(model: str) -> Record:
    """The record of a network.  Raises UnknownName."""
    numbered(model)
    row = USUAL | (described(model)["record"] if is_timm(model) else _table()[model])
    mean, std = row["mean"], row["std"]
    return Record(
        row["file"],
        row["package"],
        row["hub"],
        row["url"],
        Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), row["interpolation"]),
        row["resize"],
        row["crop"],
        row["least"],
        row["only"],
    )


def preprocessing(
    model: str,
    *,
    mean: Channels | None = None,
    std: Channels | None = None,
    interpolation: Interpolation | None = None,
) -> Preprocessing:
    """How the published weights of `model` want their images, with what the user overrides.

    Also the default for other weights and for training from scratch.  Raises UnknownName.
    """
    on_record = record(model).preprocessing
    return Preprocessing(
        mean or on_record.mean, std or on_record.std, interpolation or on_record.interpolation
    )


def check_size(model: str, size: int) -> None:
    """Raises InputError when `model` cannot take images of `size` x `size` pixels."""
    known = record(model)
    if known.only and size != known.crop:
        raise InputError(
            f"{model} takes images of {known.crop} pixels only, got {size}",
            where="target.crop_size",
            fix=f"Set target.crop_size: {known.crop}",
        )
    if size < known.least:
        raise InputError(
            f"{model} needs images of at least {known.least} pixels, got {size}",
            where="target.crop_size",
            fix="Set a larger target.crop_size, and target.decode_size",
        )
