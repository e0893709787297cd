"""BatchNorm with statistics of its own for the target's images and for borrowed ones.

What is evaluated and kept are the target's: borrowed images are normalised by their batch and leave
no trace in running statistics.  Scale and shift are the same for both.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from jobs.models.network import Network


def separate(network: Network) -> None:
    """Make every BatchNorm of `network`, in training, expect the target's images and then equally
    many borrowed ones; evaluation is untouched."""
    for part in network.module.modules():
        if isinstance(part, _BatchNorm):
            part.forward = MethodType(_by_halves, part)  # type: ignore[method-assign]


def _by_halves(norm: _BatchNorm, values: torch.Tensor) -> torch.Tensor:
    """``forward`` of a BatchNorm on two halves, each normalised by its own statistics."""
    forward = type(norm).forward
    if not norm.training:
        return forward(norm, values)
    own, borrowed = values.tensor_split(2)
    found = functional.batch_norm(
        borrowed, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
    )
    return torch.cat([forward(norm, own), found])
