"""Parameters of how layers of one treatment are trained: unfreezing and BatchNorm."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftd.job import Params


class UnfreezeParams(Params):
    """Gradual unfreezing (Howard, Ruder 2018): layers FT join one by one, from the top."""

    every_epochs: int | None = Field(
        default=None, ge=1, description="Epochs until the next layer joins."
    )
    every_steps: int | None = Field(
        default=None, ge=1, description="The same in steps, instead of every_epochs."
    )

    @model_validator(mode="after")
    def _one_unit(self) -> UnfreezeParams:
        if (self.every_epochs is None) == (self.every_steps is None):
            raise ValueError("give either every_epochs or every_steps")
        return self


class BatchNormParams(Params):
    """What normalisation by batch statistics does in layers of each treatment."""

    frozen: Literal["stored", "reestimate"] = Field(
        default="stored",
        description="Layers F. stored: statistics of the source; reestimate: mean and variance of "
        "the training images, computed once before the first step.",
    )
    tuned: Literal["train", "stored"] = Field(
        default="train",
        description="Layers FT. train: statistics of the batch; stored: those of the source, which "
        "stay as they are (scale and shift still learn).",
    )
    group_size: int | None = Field(
        default=None,
        ge=1,
        description="Statistics of groups of at most so many images, not of the whole batch "
        "(layers FT and R).",
    )
