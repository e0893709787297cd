"""Parameters of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.params.augment import AugmentParams
from jobs.params.fields import SIXTEEN_VIEWS, Fraction, NumViews
from jobs.params.layerwise import BatchNormParams, UnfreezeParams
from jobs.params.lr_find import LrFindParams
from jobs.params.metrics import ValidationMetric
from jobs.params.regularisation import EarlyStopParams, L2SPParams

Factor = Annotated[float, Field(gt=0)]


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
    lr_find: LrFindParams | None = Field(
        default=None,
        description="{lowest, highest, steps, divisor}: instead of lr, what a short search on "
        "training images finds; {} for the usual range. It is in the results as train/lr.",
    )
    head_lr_factor: float = Field(
        default=1.0, gt=0, description="Learning rate of new layers R(...), as a multiple of lr."
    )
    lr_factors: dict[str, Factor] = Field(
        default_factory=dict,
        description="Learning rates of single layers, as multiples: {1-3: 0.1, conv5-fc7: 0.5}, by "
        "number, name or range.",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Each layer learns at so many times the rate of the next one.",
    )
    unfreeze: UnfreezeParams | None = Field(
        default=None,
        description="{every_epochs} or {every_steps}: at first only new layers and the classifier "
        "learn; then one more layer FT at a time, from the top.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="For sgd.")
    nesterov: bool = Field(default=False, description="Nesterov momentum, for sgd.")
    betas: tuple[Fraction, Fraction] = Field(default=(0.9, 0.999), description="For adamw.")
    weight_decay: float = Field(
        default=5e-4, ge=0, description="Not applied to biases and normalisation layers."
    )
    l2_sp: L2SPParams | None = Field(
        default=None,
        description="{alpha, beta}: instead of weight_decay, towards the pretrained weights. Part "
        "of the gradient, also for adamw.",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="Greatest norm of all gradients together."
    )
    label_smoothing: Fraction = Field(
        default=0, description="Share of every label that is spread over all classes."
    )
    class_weights: Literal["balanced"] | dict[str, Factor] | None = Field(
        default=None,
        description="What a class counts in the loss: balanced (by 1 / its images), or {class: "
        "weight}; classes not named count 1.",
    )
    sampling: Literal["all", "balanced"] = Field(
        default="all",
        description="all: every image once per epoch; balanced: as many draws per epoch, equally "
        "often from every class.",
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
    augment: AugmentParams = AugmentParams()
    batchnorm: BatchNormParams = BatchNormParams()
    frozen_dropout: Literal["off", "on"] = Field(
        default="off", description="Dropout inside layers F while training."
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Images computed at once: a batch's gradient is added up from parts, which "
        "saves memory. BatchNorm sees the parts.",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="What training computes in (weights, validation and test stay float32); "
        "float16 needs a GPU.",
    )
    channels_last: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Memory layout of the network's tensors; auto: on where it is known to help.",
    )
    ema_decay: Fraction | None = Field(
        default=None,
        description="Keeps a moving average of the weights, which is what is validated, kept and "
        "tested: after each step decay times itself plus 1 - decay times the weights.",
    )
    early_stop: EarlyStopParams | None = Field(
        default=None,
        description="{patience_steps, min_delta}: stop when train.select no longer improves.",
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="Weights that are kept and tested: of the epoch best in validation, or last.",
    )
    test_views: NumViews = Field(
        default=1,
        description=f"How each test image is looked at: 1 as it is, or {SIXTEEN_VIEWS}: the mean "
        "of the probabilities counts. Validation images are looked at as they are.",
    )
    select: ValidationMetric | None = Field(
        default=None,
        description="What keep: best and early_stop go by. Default: val/balanced_accuracy for elpv "
        "and under imbalance, val/map for several labels, else val/top1.",
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
        if self.crop == "random" and self.augment.resized_crop is not None:
            raise ValueError("give either crop: random or augment.resized_crop")
        if self.sampling == "balanced" and self.class_weights is not None:
            raise ValueError("sampling: balanced and class_weights would balance twice; give one")
        return self
