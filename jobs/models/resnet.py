"""ResNet, wide ResNet and ResNeXt as torchvision builds them: stem, residual blocks, classifier.

A block is the smallest part that can be frozen alone without cutting through its shortcut
(He et al. 2015).
"""

from __future__ import annotations

from torch import nn

from jobs.models.network import Layer

MODELS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torchvision puts there."""
    from torchvision import models  # torchvision takes seconds to import

    module = models.get_model(model, weights=None, num_classes=num_classes)
    blocks = [
        f"{stage}.{index}"
        for stage in ("layer1", "layer2", "layer3", "layer4")
        for index, _ in module.get_submodule(stage).named_children()
    ]
    layers = (
        Layer("stem", ("conv1", "bn1")),
        *(Layer(f"block{number}", (path,)) for number, path in enumerate(blocks, start=1)),
        Layer("classifier", ("fc",)),
    )
    return module, layers
