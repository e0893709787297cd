"""Growing a network that is there: new parts are put in and filled, everything old stays.

Before the first step, or in the middle of training: then what training knows of old tensors (their
momentum, their average) is kept, and new ones start afresh.  Selection starts anew: weights of
before the growth are of another network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from ftd.errors import InputError
from jobs.growth.attach import attach
from jobs.growth.fill import filling
from jobs.growth.place import WHERE, Place, classifier_path, dims_of, place_in
from jobs.growth.structure import ROOT, structure_of
from jobs.layers import Treatment
from jobs.models.network import Network
from jobs.params.growth import GrowthParams
from jobs.params.train import TrainParams
from jobs.train.optimizer import load_optimizer_state, optimizer_state
from jobs.train.state import TrainingState


def grow(network: Network, wanted: GrowthParams, *, size: int, init_seed: int) -> Network:
    """The same network, grown as `wanted`; `network` itself must not be used any more.

    `size` is that of the images it will see, in pixels.  New parts are treated as R.  Raises
    InputError for a network that cannot grow so.
    """
    if wanted.type == "none":
        return network
    module, old = network.module, set(network.module.state_dict())
    place = place_in(module, network.layers, network.model, classifier_path(network))
    _check(network, wanted, place)
    dims = dims_of(network, place, size)
    structure = structure_of(wanted, dims)
    number = num_growths(module) + 1
    layers = attach(module, network.layers, place, structure, dims, number, network.dropout_keys)
    names = [name for name, tensor in module.state_dict().items() if name not in old]
    names += [name for name in _empty(module) if name not in names]
    known = {
        layer.name: chosen for layer, chosen in zip(network.layers, network.treatments, strict=True)
    }
    new = [layer.name for layer in layers if layer.name not in known]
    grown = replace(
        network,
        layers=layers,
        treatments=tuple(known.get(layer.name, Treatment.R) for layer in layers),
        lr_factors={**network.lr_factors, **dict.fromkeys(new, wanted.lr_factor)},
    )
    put(grown, filling(grown, place, wanted, number, names, init_seed))
    return grown


def num_growths(module: nn.Module) -> int:
    """How often a network has grown."""
    return len(list(module.get_submodule(ROOT).children())) if hasattr(module, ROOT) else 0


def _empty(module: nn.Module) -> list[str]:
    return [name for name, tensor in module.named_parameters() if tensor.is_meta]


@torch.no_grad()
def put(network: Network, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give parameters of `network` these values; those without memory get it beside the others."""
    like = next(tensor for tensor in network.module.parameters() if not tensor.is_meta)
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = network.module.get_submodule(path)
        own = owner.get_parameter(leaf)
        value = value.to(device=like.device, dtype=like.dtype)
        if own.is_meta or own.dtype != like.dtype or own.device != like.device:
            parameter = nn.Parameter(value)
            if isinstance(owner, nn.ParameterDict):
                owner[leaf] = parameter
            else:
                owner.register_parameter(leaf, parameter)
        else:
            own.copy_(value)


def _check(network: Network, wanted: GrowthParams, place: Place) -> None:
    kind = wanted.type
    wanted.check_top(network.model, place.num_fully_connected)
    if kind in ("net2wider", "net2deeper") and num_growths(network.module):
        raise InputError(
            f"{kind} copies old units, and {network.model} has grown before",
            where=WHERE,
            fix="Start from weights that have not grown",
        )


def grow_state(
    state: TrainingState, wanted: GrowthParams, train: TrainParams, *, size: int, init_seed: int
) -> None:
    """Grow the network in the middle of training.

    Old tensors keep their optimizer state and their average.
    """
    network, optimizer, average = state.network, state.optimizer, state.average
    known = optimizer_state(network.trainable(), optimizer)
    grown = grow(network, wanted, size=size, init_seed=init_seed)
    device = str(state.sums.device)
    fresh = TrainingState.initial(grown, train, device)
    load_optimizer_state(grown.trainable(), fresh.optimizer, known)
    if train.optimizer == "sgd" and train.momentum:
        _rest(grown, fresh.optimizer)
    if average is not None and fresh.average is not None:
        for name, tensor in average.tensors.items():
            fresh.average.tensors[name].copy_(tensor)
    state.network, state.optimizer, state.average = grown, fresh.optimizer, fresh.average
    state.patience = fresh.patience
    state.best, state.best_step, state.best_value = None, 0, 0.0


def _rest(network: Network, optimizer: torch.optim.Optimizer) -> None:
    """Give parameters without momentum one of 0, which is what SGD starts from.

    A fused step of a group takes momentum of all its parameters or of none.
    """
    for parameter in network.trainable().values():
        optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
