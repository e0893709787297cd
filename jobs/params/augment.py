"""Parameters of augmentation: what is drawn anew for each training image in each epoch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ftd.job import Params

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class ResizedCropParams(Params):
    """A random part of the image, resized to crop_size (Szegedy et al. 2015)."""

    scale: tuple[Share, Share] = Field(
        default=(0.08, 1.0), description="Least and greatest share of the decoded image's area."
    )
    ratio: tuple[Positive, Positive] = Field(
        default=(3 / 4, 4 / 3), description="Least and greatest width divided by height."
    )

    @model_validator(mode="after")
    def _ordered(self) -> ResizedCropParams:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("scale and ratio are written as [least, greatest]")
        return self


class ColourParams(Params):
    """How far colours vary; each is a factor of 1 - x to 1 + x, in an order drawn anew."""

    brightness: float = Field(default=0, ge=0, description="Brightness; 0 for none.")
    contrast: float = Field(default=0, ge=0, description="Contrast; 0 for none.")
    saturation: float = Field(default=0, ge=0, description="Saturation; 0 for none.")
    hue: float = Field(
        default=0, ge=0, le=0.5, description="Hue, shifted by -x to x of the colour circle."
    )

    @model_validator(mode="after")
    def _something(self) -> ColourParams:
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise ValueError("give brightness, contrast, saturation or hue, or leave colour out")
        return self


class RandAugmentParams(Params):
    """Operations drawn from a list of 14, all of one strength (Cubuk et al. 2020)."""

    num_ops: int = Field(default=2, ge=1, le=14, description="Operations in a row per image.")
    magnitude: int = Field(default=9, ge=0, le=30, description="Their strength.")


class AugmentParams(Params):
    """More than flips and crops; each draws apart, so that none changes what another draws."""

    resized_crop: ResizedCropParams | None = Field(
        default=None,
        description="{scale, ratio}: a random part of the image resized to crop_size, instead of "
        "train.crop; {} for the usual ranges.",
    )
    colour: ColourParams | None = Field(
        default=None, description="{brightness, contrast, saturation, hue}: colour jitter."
    )
    rand_augment: RandAugmentParams | None = Field(
        default=None, description="{num_ops, magnitude}: RandAugment; {} for 2 and 9."
    )
    mixup: float | None = Field(
        default=None,
        gt=0,
        description="alpha: each image is blended with another of its batch, its share drawn from "
        "Beta(alpha, alpha). With cutmix, each image gets one of the two.",
    )
    cutmix: float | None = Field(
        default=None,
        gt=0,
        description="alpha: a rectangle of each image comes from another of its batch, the share "
        "left drawn from Beta(alpha, alpha).",
    )
