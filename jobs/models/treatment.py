"""Freezing layers so that nothing can change them.

A frozen layer has no gradient (so no optimizer entry and no graph: a frozen beginning costs a
forward pass only), and its BatchNorm and dropout run in eval mode at every step.  The mode is set
right before each forward pass of the module itself, because ``train()`` on the whole network would
undo it: that is how running statistics of "frozen" networks drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from jobs.layers import Treatment
from jobs.models.network import Layer, layer_index


def freeze(module: nn.Module, layers: Sequence[Layer], treatments: Sequence[Treatment]) -> None:
    """Freeze the layers whose treatment is F; the others are left trainable."""
    frozen = [layer for layer, chosen in zip(layers, treatments, strict=True) if chosen == "F"]
    for name, parameter in module.named_parameters():
        if treatments[layer_index(layers, name)] == Treatment.F:
            parameter.requires_grad_(False)
    for name, part in module.named_modules():
        if any(layer.holds(name) for layer in frozen):
            part.register_forward_pre_hook(_evaluate)


def _evaluate(part: nn.Module, _inputs: Any) -> None:
    part.training = False
