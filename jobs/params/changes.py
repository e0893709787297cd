"""Parameters of the job ``changes``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftd.job import Params
from jobs.params.features import LayerName
from jobs.params.model import ModelParams
from jobs.params.target import TargetParams
from jobs.sources import WeightsRun


class PicturesParams(Params):
    """What is kept to look at."""

    layer: LayerName = Field(
        default="last-1",
        description="Layer whose units and map of images are shown: a number, last-1, or a name.",
    )
    units: int = Field(
        default=8,
        ge=0,
        le=100,
        description="Units shown with the images that excite them most: those that detect a class "
        "best after fine-tuning. 0 for no such picture.",
    )
    images: int = Field(default=5, ge=1, le=20, description="Images shown of each unit.")
    map_images: int = Field(
        default=1000,
        ge=0,
        le=5000,
        description="At most so many images in the map (t-SNE); 0 for no map.",
    )


class ChangesParams(Params):
    """The network before fine-tuning, the run that fine-tuned it, and the images to look at."""

    model: ModelParams = Field(
        description="The network before: exactly what the run started from, its model section."
    )
    after: WeightsRun = Field(
        description="The run of job finetune or grow whose kept weights are the network after: "
        "r12, or an experiment, whose run of the same replicate is taken."
    )
    target: TargetParams = Field(
        description="The run's target, with the same seeds: what it tested on is never looked at."
    )
    images: Literal["val", "train"] = Field(
        default="val", description="The images on which both networks are compared."
    )
    layers: list[LayerName] | None = Field(
        default=None,
        min_length=1,
        description="Layers to look at, by number or name; default: all.",
    )
    probe: bool = Field(
        default=True,
        description="Whether each layer is also judged by a linear classifier (ridge regression) "
        "on its features, fitted to the training images and measured on the validation images.",
    )
    pictures: PicturesParams = PicturesParams()
