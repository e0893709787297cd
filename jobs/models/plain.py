"""Plain networks: convolutions, then fully-connected layers, as AlexNet's and VGG's modules stand.

One builder for families that differ in width and depth.  Layers are called conv1, ..., fc6, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import nn

from jobs.models.network import Layer


@dataclass(frozen=True)
class Conv:
    """A convolution with its ReLU, and max pooling behind it: the window (0: none), stride 2."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0


@dataclass(frozen=True)
class Shape:
    """What a plain network is made of; the first fully-connected layer sees ``side`` x ``side``.

    ``least`` is the side in pixels of the smallest image that leaves something of the picture.
    """

    convolutions: tuple[Conv, ...]
    side: int
    fully_connected: tuple[int, ...]
    least: int

    def wider(self, factor: float) -> Shape:
        """With `factor` times as many channels and units in every layer but the classifier."""
        return replace(
            self,
            convolutions=tuple(
                replace(one, channels=round(one.channels * factor)) for one in self.convolutions
            ),
            fully_connected=tuple(round(units * factor) for units in self.fully_connected),
        )


class Plain(nn.Module):
    """(N, 3, H, W) float32, H and W at least ``shape.least`` pixels -> (N, num_classes) logits."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        channels = shape.convolutions[-1].channels
        # the same modules in the same places as in torchvision's AlexNet
        self.features = nn.Sequential(
            *_convolutional(shape.convolutions), nn.AdaptiveAvgPool2d(shape.side)
        )
        widths = (channels * shape.side**2, *shape.fully_connected)
        self.classifier = nn.Sequential(
            *_fully_connected(widths), nn.Linear(widths[-1], num_classes)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.classifier(self.features(images).flatten(1))


def skeleton(shape: Shape, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torch puts there."""
    module = Plain(shape, num_classes)
    return module, (
        *_layers("conv", module.features, 0),
        *_layers("fc", module.classifier, len(shape.convolutions)),
    )


def _convolutional(convolutions: Sequence[Conv]) -> Iterator[nn.Module]:
    before = 3
    for one in convolutions:
        yield nn.Conv2d(before, one.channels, one.kernel, one.stride, one.padding)
        yield nn.ReLU()
        if one.pool:
            yield nn.MaxPool2d(one.pool, 2)
        before = one.channels


def _fully_connected(widths: Sequence[int]) -> Iterator[nn.Module]:
    for before, units in pairwise(widths):
        yield nn.Dropout()
        yield nn.Linear(before, units)
        yield nn.ReLU()


def _layers(kind: str, parts: nn.Sequential, number: int) -> Iterator[Layer]:
    """The layers among `parts`, numbered on from `number`; a dropout belongs to what it feeds."""
    path = "features" if kind == "conv" else "classifier"
    waiting: tuple[str, ...] = ()
    for index, part in parts.named_children():
        if isinstance(part, nn.Dropout):
            waiting = (f"{path}.{index}",)
        elif isinstance(part, nn.Conv2d | nn.Linear):
            number += 1
            yield Layer(f"{kind}{number}", (*waiting, f"{path}.{index}"))
            waiting = ()
