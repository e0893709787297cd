"""Parameters of distances between sources and targets, and of transferability."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.params.features import FeaturesParams
from jobs.params.model import ModelParams
from jobs.params.target import TargetParams

Measure = Literal[
    "cosine", "mmd", "mmd_linear", "mmd_rbf", "svm", "cnn", "proxy_batchnorm",
    "logme", "leep", "nce", "h_score", "h_score_regularised", "transrate",
]  # fmt: skip
OF_PIXELS: tuple[Measure, ...] = ("cnn",)
OF_LABELS: tuple[Measure, ...] = (
    "logme", "leep", "nce", "h_score", "h_score_regularised", "transrate",
)  # fmt: skip
OF_WEIGHTS: tuple[Measure, ...] = ("leep", "nce", "proxy_batchnorm")  # of what was learned
OF_LAYER: tuple[Measure, ...] = (
    "cosine", "mmd", "mmd_linear", "mmd_rbf", "svm",
    "logme", "h_score", "h_score_regularised", "transrate",
)  # fmt: skip


def compares(measure: Measure) -> bool:
    """Whether a measure is one of two sets of images."""
    return measure not in (*OF_LABELS, "proxy_batchnorm")


class CnnParams(Params):
    """The small network that tells source and target images apart."""

    size: int = Field(
        default=32, ge=8, le=256, description="Pixels: larger images are shrunk to this side."
    )
    steps: int = Field(default=200, ge=1, description="Steps of training, of 64 images each.")
    lr: float = Field(default=0.003, gt=0, description="Adam's learning rate.")


class DistanceParams(Params):
    """Which network's features, of which images, how compared."""

    model: ModelParams
    features: FeaturesParams = FeaturesParams()
    source: TargetParams | None = Field(
        default=None,
        description="The images that the network was pretrained on, or others to be compared with, "
        "named and split like a target: its training images count. Without it only what the "
        "weights themselves tell of their source is measured, labelled proxy.",
    )
    target: TargetParams
    measures: Literal["all"] | list[Measure] = Field(
        default="all",
        description="all, or a list. Between source and target: cosine (of mean features), mmd "
        "(distance of mean features), mmd_linear and mmd_rbf (unbiased squares), svm (accuracy of "
        "telling both apart, and the proxy A-distance), cnn (a small network's, on pixels). Where "
        "there is no source: proxy_batchnorm. Of the target's labels: logme, leep, nce, h_score, "
        "h_score_regularised, transrate.",
    )
    num_images: int = Field(
        default=1000,
        ge=8,
        le=5000,
        description="Training images per side at most; both sides have equally many.",
    )
    repeats: int = Field(
        default=5,
        ge=2,
        le=1000,
        description="Random halves of the images that a measure's spread is taken over; svm and "
        "cnn learn on one half and are tested on the other.",
    )
    cnn: CnnParams = CnnParams()

    @model_validator(mode="after")
    def _consistent(self) -> DistanceParams:
        if self.measures == "all":
            return self
        if not self.measures:
            raise ValueError("measures must not be empty")
        twice = next((name for name in self.measures if self.measures.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"measure {twice} stands twice")
        for name in self.measures:
            if compares(name) and self.source is None:
                raise ValueError(f"measure {name} compares two sets of images, so it needs source")
            if name in OF_LABELS and self.target.multi_label and name != "logme":
                raise ValueError(f"measure {name} does not go with multi_label")
            if name in OF_WEIGHTS and self.model.weights == "none":
                raise ValueError(f"measure {name} asks what weights learned: give model.weights")
        return self

    @property
    def asked(self) -> tuple[Measure, ...]:
        """The measures to take."""
        if self.measures != "all":
            return tuple(self.measures)
        return tuple(name for name in get_args(Measure) if self._can(name))

    def _can(self, measure: Measure) -> bool:
        """Whether a measure is one of all that this comparison allows."""
        if measure in OF_WEIGHTS and self.model.weights == "none":
            return False
        if compares(measure) or measure == "proxy_batchnorm":  # the latter is for want of a source
            return compares(measure) == (self.source is not None)
        return not self.target.multi_label or measure == "logme"
