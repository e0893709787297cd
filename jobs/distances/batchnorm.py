"""A stand-in for the distance to a source whose images are not at hand: what BatchNorm remembers.

Every BatchNorm layer of pretrained weights stores the mean and variance that its inputs had on the
source.  How far the target's are from them is no measure of any of the papers but ours: per
channel the distance of two normal distributions (Frechet: sqrt((m - mu)^2 + (s - sigma)^2)), in
units of the stored standard deviation, as a root mean square over a layer's channels and a mean
over layers.  0: the same statistics; it has no upper end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from jobs.distances.halves import Estimate

Floats = npt.NDArray[np.float64]


def has_statistics(module: nn.Module) -> bool:
    """Whether some BatchNorm of the network stores statistics."""
    return bool(_batchnorms(module))


def batchnorm_distance(
    module: nn.Module, batches: Iterable[torch.Tensor], members: Sequence[npt.NDArray[np.bool_]]
) -> tuple[Estimate, dict[str, float]]:
    """The distance, with its spread over subsets, and that of each BatchNorm by its name.

    `module` in evaluation mode is shown `batches` (float32, (N, 3, H, W)); `members` say who is in
    each subset (bool, over all images).  Sums are taken in float64.
    """
    parts = _batchnorms(module)
    everything = np.ones(len(members[0]), np.bool_)
    masks = torch.from_numpy(np.stack([everything, *members]).astype(np.float64))
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, torch.Tensor] = {}
    shown = torch.zeros(0, dtype=torch.float64)

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def before(_part: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            inputs = given[0].double().flatten(2) if given[0].dim() > 2 else given[0][..., None]
            both = torch.stack([inputs.sum(2), (inputs.double() ** 2).sum(2)], 1).double().cpu()
            found = torch.einsum("rn,npc->rpc", shown, both)
            sums[name] = sums[name] + found if name in sums else found
            counted = shown.sum(1) * inputs.shape[2]
            counts[name] = counts[name] + counted if name in counts else counted

        return before

    start = 0
    with ExitStack() as hooks, torch.inference_mode():
        for name, part in parts.items():
            hooks.callback(part.register_forward_pre_hook(hook(name)).remove)
        for images in batches:
            shown = masks[:, start : start + len(images)]
            start += len(images)
            module(images)
    layers = {name: _layer(parts[name], sums[name], counts[name]) for name in sums}
    found = np.stack([*layers.values()]).mean(axis=0)
    whole = {name: float(values[0]) for name, values in layers.items()}
    return Estimate.of_whole(float(found[0]), found[1:].tolist()), whole


def _layer(part: nn.Module, sums: torch.Tensor, counts: torch.Tensor) -> Floats:
    """One layer's distance for everybody and for each subset (1 + R,)."""
    means = sums[:, 0] / counts[:, None]
    stds = (sums[:, 1] / counts[:, None] - means**2).clamp(min=0).sqrt()
    mu, sigma2 = (_stored(part, name) for name in ("running_mean", "running_var"))
    eps = float(getattr(part, "eps", 1e-5))
    unit2 = sigma2 + eps  # what the layer itself divides by
    squared = ((means - mu) ** 2 + (stds - sigma2.sqrt()) ** 2) / unit2
    found: Floats = squared.mean(dim=1).sqrt().numpy()
    return found


def _stored(part: nn.Module, name: str) -> torch.Tensor:
    tensor = getattr(part, name)
    assert isinstance(tensor, torch.Tensor), "only those with statistics were chosen"
    return tensor.detach().double().cpu()


def _batchnorms(module: nn.Module) -> dict[str, nn.Module]:
    """All modules that store a running mean and variance, by name."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(getattr(part, "running_mean", None), torch.Tensor)
        and isinstance(getattr(part, "running_var", None), torch.Tensor)
    }
