"""Parameters of the network and its weights."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ftd.job import Params
from jobs import sources
from jobs.records import Interpolation, Preprocessing, preprocessing
from jobs.sources import Weights

Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(gt=0)]


class ModelParams(Params):
    """The network and what it starts from."""

    name: str = Field(
        description="Network: one of torchvision's by its name, efficientnet_lite0, or one of "
        "timm's as timm/NAME. `ftd layers --list` shows the names."
    )
    weights: Weights = Field(
        default="imagenet",
        description="Pretrained weights: imagenet (the published ones), none (from scratch), "
        "{file: ...} or {run: r12}.",
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

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the network as it starts, as JSON values, besides the content of what
        its weights are read from."""
        shown = self.preprocessing
        return {
            "model": self.name,
            "weights": sources.identity(self.name, self.weights),
            "preprocessing": [shown.mean, shown.std, shown.interpolation],
        }

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to images: as the weights want it, but for what is said here."""
        return preprocessing(
            self.name, mean=self.mean, std=self.std, interpolation=self.interpolation
        )
