"""Initial weights, drawn by identity: each tensor from (seed, its name) and nothing else.

The rows of the classifier are drawn by class name, so that one more class leaves the others as they
are.  Always drawn on the CPU, so that a GPU run starts from the same numbers.

Convolutions: normal, variance 2 / fan_out with fan_out = kernel area x output channels / groups, no
bias (He et al. 2015, as torchvision's ResNet and VGG).  Hidden fully-connected layers: normal,
variance 2 / fan_in, the same paper's rule that keeps the signal's size through a ReLU.  In networks
with LayerNorm both have standard deviation 0.02 (as ViT, Swin and ConvNeXt).  Classifier: normal,
standard deviation 0.01, zero bias (the rule of Caffe's fine-tuning examples).

The rest, as the network's constructor leaves it where that is a constant (scales, shifts, running
statistics, tables of positions); else normal, standard deviation 0.02 (tokens, embeddings).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import nn

from ftd.seeds import keyed_hash

CLASSIFIER_STD = 0.01
EMBEDDING_STD = 0.02


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
    embeds = any(isinstance(part, nn.LayerNorm) for part in module.modules())
    for path, part in module.named_modules():
        for name, tensor in part.named_buffers(recurse=False):
            full = f"{path}.{name}" if path else name
            if full in wanted:
                drawn[full] = tensor.clone()
        for name, parameter in part.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            if full not in wanted:
                continue
            if full == f"{classifier}.weight" or full.startswith(f"{classifier}.more."):
                drawn[full] = _rows(full, parameter.shape[1:], class_names, seed)
            elif isinstance(part, nn.Conv2d | nn.Linear) and name == "bias":
                drawn[full] = torch.zeros(parameter.shape)
            elif not parameter.is_meta and _is_constant(parameter) and not _has_fan(part, name):
                drawn[full] = parameter.detach().clone()
            else:
                drawn[full] = _normal(parameter.shape, _std(part, name, embeds), seed, full)
    return drawn


def _is_constant(parameter: torch.Tensor) -> bool:
    return bool((parameter == parameter.flatten()[0]).all())


def _has_fan(part: nn.Module, name: str) -> bool:
    return isinstance(part, nn.Conv2d | nn.Linear) and name == "weight"


def _std(part: nn.Module, name: str, embeds: bool) -> float:
    """The standard deviation of a parameter's rule."""
    if embeds or not _has_fan(part, name):
        return EMBEDDING_STD
    if isinstance(part, nn.Conv2d):
        return math.sqrt(2 * part.groups / (math.prod(part.kernel_size) * part.out_channels))
    assert isinstance(part, nn.Linear)
    return math.sqrt(2 / part.in_features)


def _rows(full: str, size: torch.Size, class_names: Sequence[str], seed: int) -> torch.Tensor:
    return torch.stack([_normal(size, CLASSIFIER_STD, seed, full, name) for name in class_names])


def _normal(shape: torch.Size, std: float, seed: int, *identity: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(keyed_hash("init", seed, *identity))
    return torch.empty(shape, device="cpu").normal_(0, std, generator=generator)
