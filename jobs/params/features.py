"""Which features of a network: the output of one layer, and how its map is pooled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ftd.errors import InputError, closest
from ftd.job import Params
from jobs.layers import numbered, packed
from jobs.params.model import ModelParams

READ = "read"  # what the classifier reads


def _text(value: object) -> object:
    return str(value) if type(value) is int else value  # `layer: 7` is a number in YAML


LayerName = Annotated[str, BeforeValidator(_text)]


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

    layer: LayerName = Field(
        default="last-1",
        description="Layer whose output counts: its number, last (the logits), last-1, ..., or its "
        "name (fc7); `ftd layers MODEL` shows them. An output is what the next layer is given: "
        "behind activation and pooling, as a map where there is one. Of a network that has grown, "
        "these are its old layers; read is what its classifier reads, old and new units together "
        "(of others, last-1).",
    )
    pooling: Pooling = Pooling()

    @property
    def number(self) -> int:
        """The layer's number, once resolved; 0 for what the classifier reads."""
        return 0 if self.layer == READ else int(self.layer)


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


def resolved(features: FeaturesParams, model: ModelParams) -> FeaturesParams:
    """`features` with the layer's number and one spelling of the pooling.

    What the classifier reads has no number where nobody knows yet whether the weights have grown.
    """
    pooling = Pooling(grid="full") if features.pooling.grid == "full" else features.pooling
    layer = features.layer
    if layer == READ and isinstance(model.weights, str):
        layer = "last-1"
    if layer != READ:
        layer = str(layer_number(layer, model.name))
    return features.model_copy(update={"layer": layer, "pooling": pooling})
