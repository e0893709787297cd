"""What people write about networks, images and training: parameters shared by the image jobs.

Only checked values, no work: importing this loads neither torch nor numpy.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.sources import Interpolation, Weights

Fraction = Annotated[float, Field(ge=0, lt=1)]
Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(gt=0)]


class ModelParams(Params):
    """The network and what it starts from."""

    name: str = Field(description="Network, for example efficientnet_lite0 or resnet18.")
    weights: Weights = Field(
        default="imagenet",
        description="Pretrained weights: imagenet, none (from scratch), or {file, key_map}.",
    )
    mean: tuple[Mean, Mean, Mean] | None = Field(
        default=None,
        description="Mean of the red, green and blue channels (0 to 1); default: the weights'.",
    )
    std: tuple[Std, Std, Std] | None = Field(
        default=None,
        description="Standard deviation of the channels (0 to 1); default: the weights'.",
    )
    interpolation: Interpolation | None = Field(
        default=None, description="How images are resized; default: as the weights were trained."
    )


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


class TrainParams(Params):
    """How the network is trained.

    Defaults follow the usual recipe since Caffe: SGD with momentum 0.9, weight decay 5e-4.  (There,
    copied layers learned at 1e-3 and new ones at ten times that: lr 1e-3, head_lr_factor 10.)
    """

    epochs: int | None = Field(
        default=None, ge=1, description="Passes over the training images; or give steps."
    )
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps, instead of epochs.")
    batch_size: int = Field(
        default=32,
        ge=1,
        description="At most so many images per step; an epoch is cut into even batches.",
    )
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimizer.")
    lr: float = Field(default=1e-2, gt=0, description="Peak learning rate of copied layers.")
    head_lr_factor: float = Field(
        default=1.0, gt=0, description="Learning rate of new layers R(...), as a multiple of lr."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="For sgd.")
    nesterov: bool = Field(default=False, description="Nesterov momentum, for sgd.")
    betas: tuple[Fraction, Fraction] = Field(default=(0.9, 0.999), description="For adamw.")
    weight_decay: float = Field(
        default=5e-4, ge=0, description="Not applied to biases and normalisation layers."
    )
    schedule: Literal["constant", "cosine", "step"] = Field(
        default="cosine",
        description="constant; cosine: falls to 0; step: times gamma every step_size.",
    )
    warmup_steps: int | None = Field(
        default=None, ge=1, description="The learning rate rises linearly over so many steps."
    )
    warmup_epochs: float | None = Field(
        default=None, gt=0, description="The same in epochs, instead of warmup_steps."
    )
    step_size_steps: int | None = Field(
        default=None, ge=1, description="For schedule step: steps between two drops."
    )
    step_size_epochs: float | None = Field(
        default=None, gt=0, description="The same in epochs, instead of step_size_steps."
    )
    gamma: float = Field(
        default=0.1, gt=0, le=1, description="For schedule step: factor of one drop."
    )
    validate_every_epochs: int = Field(
        default=1, ge=1, description="Epochs between two validations; the last step always has one."
    )
    flip: bool = Field(default=True, description="Mirror images left to right at random.")
    crop: Literal["none", "random"] = Field(
        default="none",
        description="none: the centre; random: a random square of crop_size out of decode_size.",
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="Weights that are kept and tested: of the epoch best in validation, or last.",
    )
    select: Literal["val/top1", "val/balanced_accuracy", "val/auroc", "val/nll"] | None = Field(
        default=None,
        description="What keep: best goes by. Default: val/balanced_accuracy for elpv, "
        "else val/top1.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainParams:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise ValueError("give either warmup_steps or warmup_epochs")
        if self.step_size_steps is not None and self.step_size_epochs is not None:
            raise ValueError("give either step_size_steps or step_size_epochs")
        sized = self.step_size_steps is not None or self.step_size_epochs is not None
        if sized != (self.schedule == "step"):
            raise ValueError("step_size_steps or step_size_epochs goes with schedule: step")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum greater than 0")
        return self
