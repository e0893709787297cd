"""Replacing the parts of a network that draw by position or whose gradient is not exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from ftd.errors import UnknownName
from jobs.models.dropout import DropoutKeys, KeyedDropout, KeyedDropPath
from jobs.models.network import Layer, layer_index
from jobs.models.pooling import AdaptiveAvgPool2d


def make_exact(module: nn.Module, layers: Sequence[Layer], keys: DropoutKeys) -> None:
    """Put keyed dropout and exact pooling where torch's would draw by position or be inexact.

    A layer's first dropout is called like the layer, the n-th one ``layer/n``.
    """
    dropouts: Counter[str] = Counter()
    made: dict[nn.Module, nn.Module] = {}  # one part may stand in several places
    for path, part in list(module.named_modules(remove_duplicate=False)):
        if part not in made:
            keyed = _keyed(part)
            if keyed is not None:
                kind, rate = keyed
                layer = layers[layer_index(layers, path)].name
                dropouts[layer] += 1
                number = f"/{dropouts[layer]}" if dropouts[layer] > 1 else ""
                made[part] = kind(rate, layer + number, keys)
            elif isinstance(part, nn.AdaptiveAvgPool2d) and not _is_mean(part):
                made[part] = _pooling(part)
        if part in made:
            module.set_submodule(path, made[part])


def _keyed(part: nn.Module) -> tuple[type[KeyedDropout], float] | None:
    """The keyed dropout that replaces `part`, and its rate; None when there is nothing to replace.

    timm's DropPath is known by its name, since timm need not be installed.  A dropout of rate 0
    draws nothing and stays: fused attention looks up its rate.
    """
    from torchvision.ops import StochasticDepth  # torchvision takes seconds to import

    if type(part) is nn.Dropout:
        kind, rate = KeyedDropout, part.p
    elif isinstance(part, StochasticDepth) and part.mode == "row":
        kind, rate = KeyedDropPath, part.p
    elif type(part).__name__ == "DropPath" and getattr(part, "scale_by_keep", False):
        kind, rate = KeyedDropPath, float(getattr(part, "drop_prob", 0) or 0)
    else:
        return None
    return (kind, rate) if rate else None


def _is_mean(pool: nn.AdaptiveAvgPool2d) -> bool:
    """Whether `pool` takes the mean of the picture, whose gradient is exact already."""
    return pool.output_size in (1, (1, 1))


def _pooling(pool: nn.AdaptiveAvgPool2d) -> AdaptiveAvgPool2d:
    size = pool.output_size
    height, width = size if isinstance(size, tuple) else (size, size)
    assert isinstance(height, int) and isinstance(width, int)
    return AdaptiveAvgPool2d(height, width)


class _NothingRandom(TorchDispatchMode):
    """Raises UnknownName at the first operation that draws random numbers."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model
        self.tracker = ModuleTracker()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if torch.Tag.nondeterministic_seeded in func.tags:
            where = max(self.tracker.parents, key=len).partition(".")[2] or "the network itself"
            raise UnknownName(
                f"{self.model} draws random numbers in {where} ({func.name()}) that cannot be "
                "keyed by image, so its runs could not be resumed exactly",
                fix="Choose another network",
            )
        return func(*args, **(kwargs or {}))


def check_exact(model: str, module: nn.Module, num_classes: int, size: int) -> None:
    """Raises UnknownName naming the part of `module` that draws by anything but image in training.

    A training pass of two images of `size` pixels on the meta device, where `module` is moved: it
    costs no arithmetic, and nothing can be computed with `module` afterwards.
    """
    module.to("meta").train()
    keys = torch.zeros(2, dtype=torch.int64)
    for part in module.modules():
        if isinstance(part, KeyedDropout):
            part.keys.sample_keys = keys
    check = _NothingRandom(model)
    try:
        with torch.device("meta"), check.tracker, check:
            logits = module(torch.empty(2, 3, size, size))
    except ValueError as error:  # of a keyed dropout
        raise UnknownName(
            f"{model} drops out what belongs to no one image ({str(error).partition(';')[0]})",
            fix="Choose another network",
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        raise UnknownName(
            f"{model} does not give one score per class in training", fix="Choose another network"
        )
