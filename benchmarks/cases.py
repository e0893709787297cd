"""What the job ``finetune`` is measured on: a network, what is trained of it, which images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.finetune import Finetune, FinetuneParams

if TYPE_CHECKING:
    from torch import nn

LR, HEAD_LR_FACTOR = 0.01, 10.0


@dataclass(frozen=True)
class Case:
    """A network, what is trained of it, on which images, and for how long."""

    model: str
    layers: str
    weights: str
    dataset: str
    decode_size: int
    epochs: int
    batch_size: int = 16

    @property
    def name(self) -> str:
        """The case as people read it."""
        return f"{self.model} {self.layers} {self.decode_size} px"

    @property
    def head(self) -> str:
        """The network's classifier."""
        return "classifier.6" if self.model == "mini8" else "fc"

    @property
    def has_depthwise(self) -> bool:
        """Whether the network has depthwise convolutions."""
        return self.model == "efficientnet_lite0"

    @property
    def frozen(self) -> bool:
        """Whether all but the classifier is frozen."""
        return self.layers.startswith("F(")


CASES = (
    Case("efficientnet_lite0", "FT(1-last-1)R(last)", "imagenet", "elpv", 128, epochs=7),
    Case("efficientnet_lite0", "F(1-last-1)R(last)", "imagenet", "elpv", 128, epochs=26),
    Case("resnet18", "FT(1-last-1)R(last)", "none", "elpv", 64, epochs=14),
    Case("mini8", "R(1-last)", "none", "elpv", 28, epochs=120, batch_size=32),
)


def params_of(case: Case, per_class: int, val_per_class: int) -> FinetuneParams:
    """What the job is asked to do."""
    given: dict[str, Any] = {
        "model": {"name": case.model, "weights": case.weights},
        "layers": case.layers,
        "target": {
            "dataset": case.dataset,
            "decode_size": case.decode_size,
            "per_class": per_class,
            "val_per_class": val_per_class,
        },
        "train": {
            "epochs": case.epochs,
            "batch_size": case.batch_size,
            "lr": LR,
            "head_lr_factor": HEAD_LR_FACTOR,
        },
    }
    return Finetune().resolve(FinetuneParams.model_validate(given), Path("/"))


def network_of(case: Case, num_classes: int) -> nn.Module:
    """The network of `case` without what the job puts into it."""
    if case.model == "mini8":
        from jobs.models.mini8 import Mini8

        return Mini8(num_classes)
    if not case.has_depthwise:
        from torchvision import models

        network: nn.Module = models.get_model(case.model, weights=None, num_classes=num_classes)
        return network
    from jobs.models.efficientnet_lite import EfficientNetLite0
    from jobs.models.weights import load

    network = EfficientNetLite0(num_classes)
    if case.weights == "imagenet":
        state = load(case.model, "imagenet", allow_downloads=False) or {}
        kept = {
            name: value for name, value in state.items() if not name.startswith(f"{case.head}.")
        }
        network.load_state_dict(kept, strict=False)
    return network
