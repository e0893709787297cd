"""AlexNet as torchvision builds it (Krizhevsky 2014, "one weird trick"): conv1-conv5, fc6-fc8."""

from __future__ import annotations

from torch import nn

from jobs.models.network import Layer

MODELS = ("alexnet",)

LAYERS = (
    Layer("conv1", ("features.0",)),
    Layer("conv2", ("features.3",)),
    Layer("conv3", ("features.6",)),
    Layer("conv4", ("features.8",)),
    Layer("conv5", ("features.10",)),
    Layer("fc6", ("classifier.0", "classifier.1")),  # a dropout belongs to the layer it feeds
    Layer("fc7", ("classifier.3", "classifier.4")),
    Layer("fc8", ("classifier.6",)),
)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torchvision puts there."""
    from torchvision.models import alexnet  # torchvision takes seconds to import

    return alexnet(num_classes=num_classes), LAYERS
