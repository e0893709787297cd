"""What source and target images are compared by when neighbours are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from ftd.errors import InputError
from ftd.job import Input, Params
from jobs import records, sources
from jobs.params.features import FeaturesParams
from jobs.params.features import resolved as resolved_features
from jobs.params.model import ModelParams

BetweenHistograms = Literal["kl", "js", "l1", "chi2"]
BetweenVectors = Literal["l2", "cosine"]


class DescriptorParams(Params):
    """What describes an image, and the distance between two descriptors."""

    bank: Literal["kernels", "gabor", "deep"] = Field(
        default="kernels",
        description="kernels: histograms of the responses of a network's first two convolutions, "
        "before activation (Ge and Yu 2017). gabor: of 48 Gabor filters, real and imaginary parts "
        "of 4 scales x 6 orientations, on the grey image. deep: a network's features, as they are.",
    )
    model: ModelParams | None = Field(
        default=None,
        description="The network of kernels and deep; default: the job's own, as it starts.",
    )
    features: FeaturesParams = Field(
        default=FeaturesParams(), description="Of deep: the layer, and how its map is pooled."
    )
    bins: int = Field(
        default=100, ge=2, le=1000, description="Bins of each filter's histogram of responses."
    )
    binning: Literal["equal_mass", "equal_width"] = Field(
        default="equal_mass",
        description="Bins that hold equal shares of the responses to the target's training images, "
        "or that are equally wide. Responses beyond those go to the bins at the ends.",
    )
    smoothing: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Added to each bin's share before they are made to sum to 1 again. Without it "
        "kl is decided by the bins that one of two images leaves empty.",
    )
    measure: BetweenHistograms | BetweenVectors | None = Field(
        default=None,
        description="Between histograms, each layer of filters weighing equally: kl (symmetric, "
        "the default), js, l1 or chi2; the last three are computed bin by bin, many times slower. "
        "Between deep features: l2 or cosine (the default).",
    )
    size: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="Pixels: images are resized to this side first; default: as they are decoded.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DescriptorParams:
        known = get_args(BetweenVectors if self.bank == "deep" else BetweenHistograms)
        if self.measure is not None and self.measure not in known:
            raise ValueError(f"bank {self.bank} has the measures {', '.join(known)}")
        if self.bank == "gabor" and self.model is not None:
            raise ValueError("bank gabor takes no model")
        return self


def resolved(
    wanted: DescriptorParams, model: ModelParams, decode_size: int, base: Path
) -> DescriptorParams:
    """`wanted` with its defaults said: `model` is the job's own, resolved; paths start at `base`.
    Images are of `decode_size` pixels.

    Raises what resolving weights, layers and sizes does.
    """
    if wanted.bank == "gabor":
        return wanted.model_copy(update={"measure": wanted.measure or "kl"})
    if wanted.model is not None:
        weights = sources.resolve(wanted.model.name, wanted.model.weights, base)
        model = wanted.model.model_copy(update={"weights": weights})
    _check_size(model.name, wanted.size or decode_size)
    changes: dict[str, Any] = {"model": model}
    if wanted.bank == "deep":
        changes["features"] = resolved_features(wanted.features, model)
    changes["measure"] = wanted.measure or ("cosine" if wanted.bank == "deep" else "kl")
    return wanted.model_copy(update=changes)


def _check_size(model: str, size: int) -> None:
    try:
        records.check_size(model, size)
    except InputError as error:
        known = records.record(model)
        raise InputError(
            error.what,
            where="selection.descriptors.size",
            fix=f"Set selection.descriptors.size: {known.crop if known.only else known.least}",
        ) from error


def inputs(wanted: DescriptorParams) -> dict[str, Input]:
    """What resolved `wanted` reads from outside."""
    model = wanted.model
    return {} if model is None else sources.inputs(model.name, model.weights)


def identity(wanted: DescriptorParams) -> Mapping[str, Any]:
    """The JSON values of resolved `wanted` that matter, besides the content of :func:`inputs`."""
    found: dict[str, Any] = {"bank": wanted.bank, "measure": wanted.measure, "size": wanted.size}
    if wanted.bank == "deep":
        found["features"] = wanted.features.model_dump(mode="json")
    else:
        found |= {"bins": wanted.bins, "binning": wanted.binning, "smoothing": wanted.smoothing}
    return found if wanted.model is None else found | wanted.model.identity
