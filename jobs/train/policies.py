"""What BatchNorm and dropout do in layers of each treatment, put into force on a network."""

from __future__ import annotations

from types import MethodType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from jobs.layers import Treatment
from jobs.models.dropout import KeyedDropout
from jobs.models.network import Network
from jobs.models.treatment import stay_in_eval
from jobs.params.train import TrainParams

GROUP_SIZE = "group_size"  # attribute of a BatchNorm that computes in groups


def apply_policies(network: Network, train: TrainParams) -> None:
    """Make the parts of `network` behave as `train` asks, in training; evaluation is untouched."""
    if train.frozen_dropout == "on":
        _drop_everywhere(network)
    for treatment, norm in _norms(network):
        if treatment == Treatment.FT and train.batchnorm.tuned == "stored":
            stay_in_eval(norm)
        elif treatment != Treatment.F and train.batchnorm.group_size is not None:
            setattr(norm, GROUP_SIZE, train.batchnorm.group_size)
            norm.forward = MethodType(_in_groups, norm)  # type: ignore[method-assign]


def frozen_norms(network: Network) -> list[_BatchNorm]:
    """The BatchNorms of layers F."""
    return [norm for treatment, norm in _norms(network) if treatment == Treatment.F]


def _norms(network: Network) -> list[tuple[Treatment, _BatchNorm]]:
    return [
        (network.treatment_of(name), part)
        for name, part in network.module.named_modules()
        if isinstance(part, _BatchNorm)
    ]


def _drop_everywhere(network: Network) -> None:
    for part in network.module.modules():
        if isinstance(part, KeyedDropout):
            network.free_dropouts.append(part)
            part.__dict__.pop("train", None)
            part.training = True


def _in_groups(norm: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """``forward`` of a BatchNorm on the fewest groups of at most so many images, evenly cut.

    Each group is normalised by its own statistics and enters the running ones, one after the other.
    """
    forward = type(norm).forward
    num_groups = -(-len(values) // getattr(norm, GROUP_SIZE))
    if not norm.training or num_groups == 1:
        return forward(norm, values)  # type: ignore[no-any-return]
    return torch.cat([forward(norm, group) for group in values.tensor_split(num_groups)])
