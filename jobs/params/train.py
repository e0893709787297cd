"""Parameters of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.params.fields import Fraction


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
