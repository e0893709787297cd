"""A small AlexNet for images of about 28 pixels: conv1-conv5, fc6-fc8.

The same five and three layers (Krizhevsky et al. 2012), so that studies of layers can be tried on a
CPU: 0.3 million parameters, 4.0 million multiplications per image of 28 x 28.
"""

from __future__ import annotations

import torch
from torch import nn

from jobs.models.alexnet import LAYERS
from jobs.models.network import Layer

MODELS = ("mini8",)
MEAN_STD = (0.5, 0.5, 0.5)
SIZE = 28
LEAST = 12

_WIDTHS = (16, 32, 48, 48, 32)
_FULLY_CONNECTED = 256
_SIDE = 3  # of the picture that fc6 sees


class Mini8(nn.Module):
    """(N, 3, H, W) float32, H and W of at least `LEAST` pixels -> (N, num_classes) logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        one, two, three, four, five = _WIDTHS
        # the same modules in the same places as in torchvision's AlexNet, so its layers are ours
        self.features = nn.Sequential(
            *(nn.Conv2d(3, one, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(one, two, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(two, three, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(three, four, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(four, five, 3, padding=1), nn.ReLU()),
            nn.AdaptiveAvgPool2d(_SIDE),
        )
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(five * _SIDE**2, _FULLY_CONNECTED), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(_FULLY_CONNECTED, _FULLY_CONNECTED), nn.ReLU()),
            nn.Linear(_FULLY_CONNECTED, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.classifier(self.features(images).flatten(1))


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network and its layers; the weights are whatever torch puts there."""
    return Mini8(num_classes), LAYERS
