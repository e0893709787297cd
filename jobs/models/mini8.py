"""A small AlexNet for images of about 28 pixels, and others that differ from it in width or depth.

``mini8`` has the same five and three layers (Krizhevsky et al. 2012), so that studies of layers can
be tried on a CPU: 0.2 million parameters, 4.0 million multiplications per image of 28 x 28.

Width: ``mini8-w0.5``, ``mini8-w2`` and ``mini8-w4`` have so many times its channels and units;
``mini8-fc1024`` has its convolutions, and 1024 units in each fully-connected layer.
Depth: ``mini8-d6`` and ``mini8-d4`` have six and four layers, and wider ones, so that their numbers
of parameters are the same within 2 %.  These shapes are of this project, after the families of
Azizpour et al. 2016, which are for images of 224 pixels (:mod:`jobs.models.alexnet`, ``deep``).
"""

from __future__ import annotations

from torch import nn

from jobs.models import plain
from jobs.models.network import Layer
from jobs.models.plain import Conv, Shape

MEAN_STD = (0.5, 0.5, 0.5)
SIZE = 28
LEAST = 12

_SIDE = 3  # of the picture that the first fully-connected layer sees


def _shape(channels: tuple[int, ...], fully_connected: tuple[int, ...]) -> Shape:
    """Pooled behind the first two convolutions."""
    pooled = tuple(Conv(one, pool=2) for one in channels[:2])
    return Shape((*pooled, *map(Conv, channels[2:])), _SIDE, fully_connected, LEAST)


_CHANNELS = (16, 32, 48, 48, 32)
_MINI8 = _shape(_CHANNELS, (256, 256))
SHAPES = {
    "mini8": _MINI8,
    "mini8-w0.5": _MINI8.wider(0.5),
    "mini8-w2": _MINI8.wider(2),
    "mini8-w4": _MINI8.wider(4),
    "mini8-fc1024": _shape(_CHANNELS, (1024, 1024)),
    "mini8-d6": _shape((40, 80, 32), (256, 256)),
    "mini8-d4": _shape((36, 72), (256,)),
}
MODELS = tuple(SHAPES)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torch puts there."""
    return plain.skeleton(SHAPES[model], num_classes)
