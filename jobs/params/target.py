"""Parameters of the images a network is adapted to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.params.fields import Fraction


class ElpvParams(Params):
    """How the defect probabilities of the solar cells (0, 1/3, 2/3, 1) become two classes."""

    threshold: float = Field(
        default=0.5, ge=0, lt=1, description="A cell is defective above this probability."
    )
    uncertain: Literal["keep", "drop"] = Field(
        default="keep", description="Cells the experts were unsure about (1/3 and 2/3)."
    )


class TargetParams(Params):
    """The images the network is adapted to, and how they are split."""

    dataset: Literal["elpv", "digits", "folder"] = Field(
        description="elpv (solar cells), digits (scikit-learn's), or folder (your own images)."
    )
    folder: str | None = Field(
        default=None,
        description="For dataset folder: a folder with one subfolder of images per class, or with "
        "train, val and test folders of that kind. Relative to the spec.",
    )
    decode_size: int = Field(
        default=224,
        ge=8,
        le=4096,
        description="Pixels: images are resized to this shorter side and cropped to a square.",
    )
    crop_size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Pixels: side of the square the network sees; default: decode_size.",
    )
    split: Literal["random", "blocks", "given"] | None = Field(
        default=None,
        description="random: by image, per class; blocks: neighbouring files stay together; "
        "given: the folder's own train, val and test. Default: blocks for elpv, given for a "
        "folder that has train and test, else random.",
    )
    test_fraction: float = Field(
        default=0.25, gt=0, lt=1, description="Share of all images kept for the test."
    )
    val_fraction: Fraction = Field(
        default=0.2, description="Share of the other images used for validation."
    )
    val_per_class: int | None = Field(
        default=None,
        ge=0,
        description="Validation images per class, instead of val_fraction; 0 for none.",
    )
    per_class: int | None = Field(
        default=None,
        ge=1,
        description="Training images per class; default: all. The images of a smaller number are "
        "among those of a larger one.",
    )
    elpv: ElpvParams = ElpvParams()

    @model_validator(mode="after")
    def _consistent(self) -> TargetParams:
        if (self.dataset == "folder") != (self.folder is not None):
            raise ValueError("folder goes with dataset: folder, and dataset: folder needs it")
        if self.crop_size is not None and self.crop_size > self.decode_size:
            raise ValueError("crop_size must not be larger than decode_size")
        if self.split == "given" and self.dataset != "folder":
            raise ValueError(f"split: given needs dataset: folder; {self.dataset} has no own split")
        return self
