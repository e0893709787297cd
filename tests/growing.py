"""Small growing networks for tests: parameters of runs, and networks of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from jobs.grow import Grow, GrowParams
from jobs.growth.surgery import grow
from jobs.models.network import Network
from jobs.params.growth import GrowthParams
from tests.networks import network

SIZES = {"mini8": 28, "efficientnet_lite0": 64}
BASE: dict[str, Any] = {
    "model": {"name": "mini8", "weights": "none"},
    "layers": "FT(1-7)R(8)",
    "target": {
        "dataset": "digits", "decode_size": 20, "crop_size": 16, "test_fraction": 0.02,
        "val_per_class": 1, "per_class": 2,
    },
    "train": {"epochs": 2, "batch_size": 8, "lr": 0.01, "select": "val/nll"},
    "growth": {"type": "wa", "units": 12},
}  # fmt: skip


def params(**sections: Mapping[str, Any] | str) -> GrowParams:
    """The resolved base parameters with some keys replaced.

    Others than ``target``, ``model`` and ``train`` are replaced as a whole, or left out if empty.
    """
    raw = dict(BASE)
    for name, changes in sections.items():
        keeps = not isinstance(changes, str) and name in ("model", "target", "train")
        raw[name] = {**raw[name], **changes} if keeps else changes or None  # type: ignore[dict-item]
    job = Grow()
    found = job.resolve(job.Params.model_validate(raw), Path())
    assert isinstance(found, GrowParams)
    return found


def grown(model: str = "mini8", text: str = "FT(1-)", seed: int = 1, **growth: Any) -> Network:
    """A network of random weights, grown."""
    return grow_again(network(model, text, random_state(model), init_seed=seed), seed, **growth)


def grow_again(before: Network, seed: int = 1, **growth: Any) -> Network:
    """The same network, grown once more."""
    wanted = GrowthParams(**growth)
    return grow(before, wanted, size=SIZES.get(before.model, 224), init_seed=seed)


def images(model: str, number: int = 4) -> torch.Tensor:
    """Random images of a size that `model` takes."""
    size = SIZES.get(model, 224)
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(5))


@cache
def random_state(model: str) -> dict[str, torch.Tensor]:
    """Weights of `model` for three classes, with biases that are not 0."""
    state = network(model, init_seed=9).state()
    generator = torch.Generator().manual_seed(8)
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        if name.endswith("bias") else tensor
        for name, tensor in state.items()
    }  # fmt: skip
