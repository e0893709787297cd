"""Freezing layers so that nothing can change them.

A frozen layer has no gradient (so no optimizer entry and no graph: a frozen beginning costs a
forward pass only), and its BatchNorm and dropout run in eval mode at every step.  Its modules
ignore ``train()``, because ``train()`` on the whole network would put them into training mode: that
is how running statistics of "frozen" networks drift.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import MethodType

from torch import nn

from jobs.layers import Treatment
from jobs.models.network import Layer, Network, layer_index


def freeze(module: nn.Module, layers: Sequence[Layer], treatments: Sequence[Treatment]) -> None:
    """Freeze the layers whose treatment is F; the others are left trainable."""
    frozen = [layer for layer, chosen in zip(layers, treatments, strict=True) if chosen == "F"]
    for name, parameter in module.named_parameters():
        if treatments[layer_index(layers, name)] == Treatment.F:
            parameter.requires_grad_(False)
    for name, part in module.named_modules():
        if any(layer.holds(name) for layer in frozen):
            stay_in_eval(part)


def stay_in_eval(part: nn.Module) -> None:
    """Put `part`, and what is inside it, into eval mode; it no longer listens to ``train()``."""
    part.eval()
    # A hook that sets the mode before each pass would cost 3 % of a step.
    part.train = MethodType(_stay, part)  # type: ignore[method-assign]


def hold(network: Network, waiting: Collection[int]) -> None:
    """Treat these 0-based layers of `network` as frozen, and no longer others held before."""
    for index in network.held.keys() - set(waiting):
        _set_gradients(network, index, True)
        for part in network.held.pop(index):
            part.__dict__.pop("train", None)
            part.training = network.module.training
    for index in set(waiting) - network.held.keys():
        _set_gradients(network, index, False)
        network.held[index] = [
            part
            for name, part in network.module.named_modules()
            if network.layers[index].holds(name) and "train" not in part.__dict__
        ]
        for part in network.held[index]:
            stay_in_eval(part)
    for part in network.free_dropouts:
        part.__dict__.pop("train", None)
    network.set_free_dropouts(network.module.training)


def _set_gradients(network: Network, index: int, wanted: bool) -> None:
    for name, parameter in network.module.named_parameters():
        if network.layers[index].holds(name):
            parameter.requires_grad_(wanted)


def _stay(part: nn.Module, mode: bool = True) -> nn.Module:
    """What ``train`` does on a frozen module: nothing, whatever `mode` is asked for."""
    return part
