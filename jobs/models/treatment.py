"""Freezing layers so that nothing can change them.

A frozen layer has no gradient (so no optimizer entry and no graph: a frozen beginning costs a
forward pass only), and its BatchNorm and dropout run in eval mode at every step.  Its modules
ignore ``train()``, because ``train()`` on the whole network would put them into training mode: that
is how running statistics of "frozen" networks drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType

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
            part.eval()
            # A hook that sets the mode before each pass would cost 3 % of a step.
            part.train = MethodType(_stay, part)


def _stay(part: nn.Module, mode: bool = True) -> nn.Module:
    """What ``train`` does on a frozen module: nothing, whatever `mode` is asked for."""
    return part
