"""Initial weights, drawn by identity: each tensor from (seed, its name) and nothing else.

The rows of the classifier are drawn by class name, so that one more class leaves the others as they
are.  Always drawn on the CPU, so that a GPU run starts from the same numbers.

Convolutions: normal, variance 2 / fan_out with fan_out = kernel area x output channels / groups, no
bias (He et al. 2015, as torchvision's ResNet and VGG).  Hidden fully-connected layers: normal,
variance 2 / fan_in, the same paper's rule that keeps the signal's size through a ReLU.  Classifier:
normal, standard deviation 0.01, zero bias (the rule of Caffe's fine-tuning examples).
Normalisation: scale 1, shift 0, running statistics reset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import nn

from ftd.seeds import keyed_hash

CLASSIFIER_STD = 0.01


def initial_state(
    module: nn.Module,
    wanted: Collection[str],
    *,
    classifier: str,
    class_names: Sequence[str],
    seed: int,
) -> dict[str, torch.Tensor]:
    """Fresh tensors for the parameters and buffers of `module` (any device) that are `wanted`.

    `classifier` is the name of the module whose row i scores ``class_names[i]``.
    """
    drawn = {}
    for path, part in module.named_modules():
        for name, tensor in [
            *part.named_parameters(recurse=False),
            *part.named_buffers(recurse=False),
        ]:
            full = f"{path}.{name}" if path else name
            if full not in wanted:
                continue
            if full == f"{classifier}.weight":
                drawn[full] = _rows(full, tensor.shape[1], class_names, seed)
            else:
                drawn[full] = _rule(part, name)(tensor.shape, full, seed)
    return drawn


Rule = Callable[[torch.Size, str, int], torch.Tensor]


def _rule(part: nn.Module, name: str) -> Rule:
    if name == "num_batches_tracked":
        return lambda shape, full, seed: torch.zeros(shape, dtype=torch.int64)
    if isinstance(part, nn.BatchNorm2d):
        value = 1.0 if name in ("weight", "running_var") else 0.0
        return lambda shape, full, seed: torch.full(shape, value)
    if isinstance(part, nn.Conv2d | nn.Linear) and name == "bias":
        return lambda shape, full, seed: torch.zeros(shape)
    if isinstance(part, nn.Conv2d):
        fan_out = math.prod(part.kernel_size) * part.out_channels // part.groups
        return lambda shape, full, seed: _normal(shape, math.sqrt(2 / fan_out), seed, full)
    if isinstance(part, nn.Linear):
        return lambda shape, full, seed: _normal(shape, math.sqrt(2 / shape[1]), seed, full)
    raise TypeError(f"no rule to initialise {name} of {type(part).__name__}")


def _rows(full: str, num_features: int, class_names: Sequence[str], seed: int) -> torch.Tensor:
    size = torch.Size([num_features])
    return torch.stack([_normal(size, CLASSIFIER_STD, seed, full, name) for name in class_names])


def _normal(shape: torch.Size, std: float, seed: int, *identity: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(keyed_hash("init", seed, *identity))
    return torch.empty(shape, device="cpu").normal_(0, std, generator=generator)
