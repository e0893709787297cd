"""Pretrained weights as a spec names them: what they read from outside and what input they expect.

``imagenet`` means the published ImageNet weights of a network: for EfficientNet-Lite0 the file
inside an installed package, for torchvision's networks the file in torch's download folder.
Knows no torch: the facts come from a table that ``python -m jobs.models.table`` generates.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ftd.errors import WeightsError
from ftd.job import Input, Params
from ftd.regular import full_path
from jobs.layers import numbered

MAX_WEIGHTS_BYTES = 32 << 30
TABLE = Path(__file__).parent / "models" / "imagenet.json"

Interpolation = Literal["bilinear", "bicubic"]
Channels = tuple[float, float, float]


class WeightsFile(Params):
    """Weights in a file of one's own."""

    file: str = Field(
        description="safetensors (*.safetensors) or a PyTorch file that holds tensors only"
    )
    key_map: dict[str, str | None] = Field(
        default_factory=dict,
        description="prefix of the names in the file -> prefix in the network, the longest match "
        "counts; null drops such tensors",
    )


Weights = Literal["imagenet", "none"] | WeightsFile


@dataclass(frozen=True)
class Preprocessing:
    """What images a network expects: RGB in 0..1, then ``(x - mean) / std`` per channel."""

    mean: Channels
    std: Channels
    interpolation: Interpolation


@dataclass(frozen=True)
class Published:
    """Published ImageNet weights; the file's name holds the first 8 digits of its SHA-256."""

    file: str
    package: str | None  # the distribution that ships it; None: torch's download folder


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads(TABLE.read_text())
    return table


def published(model: str) -> Published:
    """The ImageNet weights of `model`; every built-in network has some.  Raises UnknownName."""
    numbered(model)
    row = _table()[model]
    return Published(row["file"], row["package"])


def preprocessing(
    model: str,
    *,
    mean: Channels | None = None,
    std: Channels | None = None,
    interpolation: Interpolation | None = None,
) -> Preprocessing:
    """How the ImageNet weights of `model` want their images, with what the user overrides.

    Also the default for other weights and for training from scratch.  Raises UnknownName.
    """
    numbered(model)
    row = _table()[model]
    return Preprocessing(
        mean or (row["mean"][0], row["mean"][1], row["mean"][2]),
        std or (row["std"][0], row["std"][1], row["std"][2]),
        interpolation or row["interpolation"],
    )


def resolve(model: str, weights: Weights, base: Path) -> Weights:
    """`weights` with an absolute file path (relative ones start at `base`).

    Raises UnknownName for the network and WeightsError when the file is missing.
    """
    numbered(model)
    if not isinstance(weights, WeightsFile):
        return weights
    path = full_path(weights.file, base)
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {path}", where="model.weights.file", fix="Check the path"
        )
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise WeightsError(
            f"{path} is larger than any weights, {MAX_WEIGHTS_BYTES >> 30} GiB",
            where="model.weights.file",
            fix="Check the path",
        )
    return weights.model_copy(update={"file": str(path)})


def inputs(model: str, weights: Weights) -> dict[str, Input]:
    """What resolved `weights` read from outside.

    Weights in torch's download folder are no input: their digest is part of their name, which is in
    :func:`identity`, and is verified when they are loaded.
    """
    if isinstance(weights, WeightsFile):
        return {"weights": Input("file", weights.file)}
    package = published(model).package if weights == "imagenet" else None
    return {"weights": Input("package", package)} if package else {}


def identity(model: str, weights: Weights) -> Mapping[str, Any]:
    """What determines the loaded tensors, as JSON values, besides the content of :func:`inputs`."""
    if isinstance(weights, WeightsFile):
        return {"key_map": dict(weights.key_map)}
    return {"imagenet": published(model).file} if weights == "imagenet" else {}


def download_folder() -> Path:
    """Where torch keeps downloaded weights (``torch.hub.get_dir()/checkpoints``)."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"
