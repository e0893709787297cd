"""Networks of 3 x 3 convolutions whose depth varies at about the same number of parameters.

After Azizpour et al., Factors of transferability for a generic ConvNet representation, TPAMI 2016:
``deep8``, ``deep11``, ``deep13``, and ``deep16``, which is VGG-16 (Simonyan and Zisserman 2014) and
has more parameters.  The channels are those of a third party's re-creation; that the last map is
averaged to 7 x 7 is a choice of this project.  There are no published weights of these.
"""

from __future__ import annotations

from torch import nn

from jobs.models import plain
from jobs.models.network import Layer
from jobs.models.plain import Conv, Shape

_FULLY_CONNECTED = (4096, 4096)
_SIDE = 7


def _shape(*blocks: tuple[int, ...]) -> Shape:
    """Blocks of convolutions with these channels, pooled behind each block."""
    convolutions = [
        Conv(channels, pool=2 if number == len(block) else 0)
        for block in blocks
        for number, channels in enumerate(block, start=1)
    ]
    return Shape(tuple(convolutions), _SIDE, _FULLY_CONNECTED, least=2 ** len(blocks))


SHAPES = {
    "deep8": _shape((64,), (128,), (256,), (256, 256)),
    "deep11": _shape((64,), (128,) * 3, (256,) * 2, (256,) * 2),
    "deep13": _shape((64,) * 2, (128,) * 4, (256,) * 2, (256,) * 2),
    "deep16": _shape((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
}
MODELS = tuple(SHAPES)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torch puts there."""
    return plain.skeleton(SHAPES[model], num_classes)
