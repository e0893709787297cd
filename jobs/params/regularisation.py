"""Parameters that keep training from going too far: L2-SP and early stopping."""

from __future__ import annotations

from pydantic import Field

from ftd.job import Params


class L2SPParams(Params):
    """Decay towards the pretrained weights instead of zero (Li, Grandvalet, Davoine 2018)."""

    alpha: float = Field(
        ge=0, description="Layers FT: alpha / 2 times the squared distance to their start."
    )
    beta: float = Field(ge=0, description="Layers R: beta / 2 times the squared weights.")


class EarlyStopParams(Params):
    """Stop when validation no longer improves."""

    patience_steps: int = Field(
        ge=1, description="Steps without an improvement of train.select after which to stop."
    )
    min_delta: float = Field(default=0, ge=0, description="What counts as an improvement is more.")
