"""Small networks for tests, computed on one thread so that tests can run side by side."""

from __future__ import annotations

from functools import cache

import torch

from jobs import layers
from jobs.layers import treatments
from jobs.models.build import build
from jobs.models.network import Network
from jobs.models.weights import load

NAMES = ("cat", "dog", "newt")

torch.set_num_threads(1)


def network(
    model: str,
    text: str = "FT(1-)",
    pretrained: dict[str, torch.Tensor] | None = None,
    class_names: tuple[str, ...] = NAMES,
    init_seed: int = 1,
    dropout_seed: int = 2,
) -> Network:
    """A network with its layers treated as `text` says."""
    chosen = treatments(text, len(layers.numbered(model)))
    return build(
        model, class_names, chosen, pretrained, init_seed=init_seed, dropout_seed=dropout_seed
    )


@cache
def scratch_state(model: str) -> dict[str, torch.Tensor]:
    """Complete random weights for the three classes, none of which is a layer's initial value."""
    built = network(model, init_seed=77).state()
    return {
        name: tensor + (0.01 if tensor.is_floating_point() else 7) for name, tensor in built.items()
    }


@cache
def imagenet_state() -> dict[str, torch.Tensor]:
    """The packaged ImageNet weights of EfficientNet-Lite0."""
    state = load("efficientnet_lite0", "imagenet", allow_downloads=False)
    assert state is not None
    return state


def digest(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """The bytes of each tensor."""
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}
