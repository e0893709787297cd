"""From two states of one network to how far each of its layers moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from jobs.inspection.displacement import (
    Displacement,
    Normalisation,
    NormalisationShift,
    displacement,
    normalisation_shift,
)
from jobs.models.network import Layer

State = Mapping[str, torch.Tensor]
Tensors = dict[str, npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Moved:
    """What happened to one layer's weights; ``normalisation`` is None where it has no BatchNorm."""

    weights: Displacement
    normalisation: NormalisationShift | None


def moved(module: nn.Module, layer: Layer, before: State, after: State) -> Moved | None:
    """How far `layer` of a network like `module` moved between two states; None when it has no
    parameters.

    Its weights are all its parameters.  What BatchNorm keeps of the images it saw counts by itself.
    """
    names = [name for name, _ in module.named_parameters() if layer.holds(name)]
    if not names:
        return None
    parts = [
        path
        for path, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats and part.affine
        and layer.holds(path)
    ]  # fmt: skip
    return Moved(
        displacement(_arrays(before, names), _arrays(after, names)),
        normalisation_shift(
            [_normalisation(module, path, before) for path in parts],
            [_normalisation(module, path, after) for path in parts],
        ),
    )


def unmoved(module: nn.Module, layer: Layer, before: State, after: State) -> bool:
    """Whether every parameter of `layer` is the same in both states, bit for bit."""
    names = (name for name, _ in module.named_parameters() if layer.holds(name))
    return all(torch.equal(before[name], after[name]) for name in names)


def first_filters(module: nn.Module, layer: Layer, state: State) -> npt.NDArray[np.float64] | None:
    """The filters (C, 3, h, w) of the first convolution in `layer` that sees colours, if any."""
    for path, part in module.named_modules():
        if layer.holds(path) and isinstance(part, nn.Conv2d) and part.in_channels == 3:
            return np.asarray(state[f"{path}.weight"].double().numpy())
    return None


def _arrays(state: State, names: Sequence[str]) -> Tensors:
    return {name: np.asarray(state[name].numpy()) for name in names}


def _normalisation(module: nn.Module, path: str, state: State) -> Normalisation:
    part = module.get_submodule(path)
    assert isinstance(part, _BatchNorm)
    mean, variance, scale, shift = (
        np.asarray(state[f"{path}.{name}"].numpy())
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return Normalisation(mean, variance, scale, shift, part.eps)
