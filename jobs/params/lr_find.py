"""Parameters of the search for a learning rate before training."""

from __future__ import annotations

from pydantic import Field, model_validator

from ftd.job import Params


class LrFindParams(Params):
    """A range test (Smith 2017): the learning rate rises from step to step, then all is undone."""

    lowest: float = Field(default=1e-6, gt=0, description="Learning rate of its first step.")
    highest: float = Field(default=1.0, gt=0, description="Learning rate of its last step.")
    steps: int = Field(
        default=100, ge=5, description="Its steps; they do not count as steps of training."
    )
    divisor: float = Field(
        default=3,
        ge=1,
        description="What is found is the rate around which the loss was least, divided by this.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> LrFindParams:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be less than highest")
        return self
