"""The optimizer: who gets which learning rate and weight decay, and its state by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from jobs.layer_rates import layer_factors
from jobs.layers import Treatment
from jobs.models.network import Network
from jobs.params.train import TrainParams

PEAK_LR = "peak_lr"


def build_optimizer(
    network: Network, train: TrainParams, beside: nn.Module | None = None
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters, one group per (learning rate, weight decay).

    New layers learn at ``head_lr_factor`` times ``lr``, each layer at its own multiple of that
    (parts once grown as the layer beside them, parts just grown at ``lr_factors`` of the network);
    biases and normalisation layers (every parameter with one dimension) have no weight decay, and
    nothing has with L2-SP, which takes its place.  What learns `beside` the network does so as new
    layers do.
    """
    names = [layer.name for layer in network.layers if not layer.host]
    numbered = layer_factors(train.lr_factors, train.layer_decay, names)
    factors = dict(zip(names, numbered, strict=True))
    groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}

    def decay(parameter: nn.Parameter) -> float:
        return train.weight_decay if parameter.ndim > 1 and train.l2_sp is None else 0.0

    for name, parameter in network.trainable().items():
        index = network.layer_of(name)
        layer = network.layers[index]
        is_new = network.treatments[index] == Treatment.R
        if layer.name in network.lr_factors:
            peak_lr = train.lr * network.lr_factors[layer.name]
        else:
            peak_lr = train.lr * train.head_lr_factor if is_new else train.lr
            peak_lr *= factors[layer.host or layer.name]
        # Layers that join one by one need groups of their own: a fused step takes all or none.
        joins = index if train.unfreeze is not None else 0
        groups.setdefault((peak_lr, decay(parameter), joins), []).append(parameter)
    for parameter in () if beside is None else beside.parameters():
        key = (train.lr * train.head_lr_factor, decay(parameter), len(network.layers))
        groups.setdefault(key, []).append(parameter)
    described = [
        {"params": parameters, "lr": peak_lr, PEAK_LR: peak_lr, "weight_decay": weight_decay}
        for (peak_lr, weight_decay, _), parameters in groups.items()
    ]
    if train.optimizer == "adamw":
        return torch.optim.AdamW(described, betas=train.betas, fused=True)
    return torch.optim.SGD(described, momentum=train.momentum, nesterov=train.nesterov, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group[PEAK_LR] * factor


def optimizer_state(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """The optimizer's tensors as ``slot/parameter name``, such as ``momentum_buffer/fc.bias``."""
    return {
        f"{slot}/{name}": tensor
        for name, parameter in parameters.items()
        for slot, tensor in optimizer.state[parameter].items()
        if tensor is not None
    }


def load_optimizer_state(
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, torch.Tensor],
) -> None:
    """Put back what :func:`optimizer_state` gave, in each parameter's device and memory layout."""
    for key, tensor in state.items():
        slot, _, name = key.partition("/")
        parameter = parameters[name]
        like = parameter.detach() if tensor.shape == parameter.shape else tensor
        place = torch.empty_like(like, dtype=tensor.dtype, device=parameter.device)
        optimizer.state[parameter][slot] = place.copy_(tensor)
