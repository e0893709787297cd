"""Which features of a network: the output of one layer, and how its map is pooled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ftd.errors import InputError, closest
from ftd.job import Params
from jobs.layers import numbered, packed


def _text(value: object) -> object:
    return str(value) if type(value) is int else value  # `layer: 7` is a number in YAML


class Pooling(Params):
    """From a map of features to a vector."""

    grid: Annotated[int, Field(ge=1, le=64)] | Literal["full"] = Field(
        default=1,
        description="Cells per side in which a map is pooled: 1 for the whole picture, 2 for its "
        "quarters, ...; full for the map as it is. A grid finer than the map is the map.",
    )
    by: Literal["mean", "max"] = Field(
        default="mean", description="What a cell is known by: the mean or the maximum."
    )

    def __str__(self) -> str:
        """``2x2 max`` and the like, for people."""
        return "full" if self.grid == "full" else f"{self.grid}x{self.grid} {self.by}"


class FeaturesParams(Params):
    """The output of a layer as a vector per image."""

    layer: Annotated[str, BeforeValidator(_text)] = Field(
        default="last-1",
        description="Layer whose output counts: its number, last (the logits), last-1, ..., or its "
        "name (fc7); `ftd layers MODEL` shows them. An output is what the next layer is given: "
        "behind activation and pooling, as a map where there is one. What a network has grown is "
        "no layer of it: these are its old ones.",
    )
    pooling: Pooling = Pooling()


def layer_number(layer: str, model: str) -> int:
    """The number (from 1) of the layer that people call `layer` in the network `model`.

    Raises InputError when there is none, UnknownName for the network.
    """
    names = numbered(model)
    if layer in names:
        return names.index(layer) + 1
    text = layer.replace(" ", "")
    number = 0
    if text.isascii() and text.isdecimal() and len(text) <= 6:
        number = int(text)
    elif text == "last":
        number = len(names)
    elif text.startswith("last-") and text[5:].isascii() and text[5:].isdecimal():
        number = len(names) - int(text[5:][:6])
    if not 1 <= number <= len(names):
        raise InputError(
            f"{model} has no layer '{layer}'",
            where="features.layer",
            fix=f"{closest(layer, list(names))} It has 1 to {len(names)}, called "
            f"{packed(names)}".strip(),
        )
    return number


def resolved(features: FeaturesParams, model: str) -> FeaturesParams:
    """`features` with the layer's number and one spelling of the pooling."""
    pooling = Pooling(grid="full") if features.pooling.grid == "full" else features.pooling
    number = str(layer_number(features.layer, model))
    return features.model_copy(update={"layer": number, "pooling": pooling})
