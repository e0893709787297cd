"""VGG as torchvision builds it (Simonyan, Zisserman 2014): conv1_1-conv5_x, fc6-fc8.

A layer is a convolution with the BatchNorm behind it, or a fully-connected layer with the dropout
before it.
"""

from __future__ import annotations

from torch import nn

from jobs.models.network import Layer

MODELS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))

_FULLY_CONNECTED = (
    Layer("fc6", ("classifier.0",)),
    Layer("fc7", ("classifier.2", "classifier.3")),
    Layer("fc8", ("classifier.5", "classifier.6")),
)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are not initialised by any rule to rely on."""
    from torchvision import models  # torchvision takes seconds to import

    module = models.get_model(model, weights=None, num_classes=num_classes, init_weights=False)
    return module, (*_convolutions(module.get_submodule("features")), *_FULLY_CONNECTED)


def _convolutions(features: nn.Module) -> list[Layer]:
    layers: list[Layer] = []
    block, number = 1, 0
    for index, part in features.named_children():
        path = f"features.{index}"
        if isinstance(part, nn.MaxPool2d):
            block, number = block + 1, 0
        elif isinstance(part, nn.Conv2d):
            number += 1
            layers.append(Layer(f"conv{block}_{number}", (path,)))
        elif isinstance(part, nn.BatchNorm2d):
            convolution = layers.pop()
            layers.append(Layer(convolution.name, (*convolution.modules, path)))
    return layers
