"""AlexNet as torchvision builds it (Krizhevsky 2014, "one weird trick"), and networks of its kind
that differ in width: conv1-conv5, fc6-fc8.

``alexnet-tiny``, ``-small``, ``-medium`` and ``-large`` have the numbers of channels and units in
Azizpour et al., Factors of transferability for a generic ConvNet representation, TPAMI 2016
(medium: Krizhevsky et al. 2012; large: OverFeat).  Choices of this project: kernels, strides and
pooling are AlexNet's in all of them, without groups and local response normalisation; to large's
map of 5 x 5 the picture is averaged.  There are no published weights of these.
"""

from __future__ import annotations

from torch import nn

from jobs.models import plain
from jobs.models.network import Layer
from jobs.models.plain import Conv, Shape

PUBLISHED = "alexnet"

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


def _shape(
    channels: tuple[int, int, int, int, int], fully_connected: tuple[int, int], side: int = 6
) -> Shape:
    one, two, three, four, five = channels
    convolutions = (
        Conv(one, kernel=11, stride=4, padding=2, pool=3),
        Conv(two, kernel=5, padding=2, pool=3),
        *(Conv(three), Conv(four), Conv(five, pool=3)),
    )
    return Shape(convolutions, side, fully_connected, least=63)


SHAPES = {
    "alexnet-tiny": _shape((24, 64, 96, 96, 64), (4096, 1024)),
    "alexnet-small": _shape((48, 128, 192, 192, 128), (4096, 2048)),
    "alexnet-medium": _shape((96, 256, 384, 384, 256), (4096, 4096)),
    "alexnet-large": _shape((96, 256, 512, 1024, 1024), (4096, 4096), side=5),
}
MODELS = (PUBLISHED, *SHAPES)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torch or torchvision puts there."""
    if model in SHAPES:
        return plain.skeleton(SHAPES[model], num_classes)
    from torchvision.models import alexnet  # torchvision takes seconds to import

    return alexnet(num_classes=num_classes), LAYERS
