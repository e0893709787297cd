"""Networks of timm by name, ``timm/NAME``: numbered through timm's own groups of parameters.

timm's matcher (the fine one) says which group each tensor is in: the first group is the stem, what
shares the classifier's group is the head, the classifier is a layer of its own.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from torch import nn

from ftd.errors import UnknownName, closest
from jobs.models.network import Layer
from jobs.models.numbering import grouped
from jobs.timm_names import PREFIX, no_timm


def timm_library() -> ModuleType:
    """timm itself; UnknownName that says how to get it when it is not installed."""
    try:
        import timm  # seconds, and an optional extra
    except ImportError as error:
        raise no_timm() from error
    return timm


def names() -> list[str]:
    """The names of all networks, sorted, without ``timm/``."""
    found: list[str] = sorted(timm_library().list_models())
    return found


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network called ``timm/NAME`` and its layers; the weights are whatever timm puts there.

    Raises UnknownName when timm has none of that name, or does not say how its parts are grouped.
    """
    timm = timm_library()
    name = model.removeprefix(PREFIX)
    if not timm.is_model(name):
        near = closest(name, timm.list_models())
        raise UnknownName(f"timm has no network '{name}'", fix=near)
    try:
        module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    except NotImplementedError:  # it computes with weights that have no memory yet
        raise
    except RuntimeError as error:  # an unknown tag behind the dot
        raise UnknownName(f"timm cannot make '{name}' ({error})") from error
    return module, _layers(model, module)


def _layers(model: str, module: nn.Module) -> tuple[Layer, ...]:
    from timm.models import group_parameters

    if not (hasattr(module, "group_matcher") and hasattr(module, "get_classifier")):
        raise UnknownName(
            f"{model} cannot be numbered: timm does not say how its parts are grouped",
            fix="Choose another network",
        )
    head = module.get_classifier()
    linear = [
        path
        for part in (head if isinstance(head, tuple | list | nn.ModuleList) else [head])
        for path, inner in module.named_modules()
        if isinstance(inner, nn.Linear | nn.Conv2d) and inner in list(part.modules())
    ]
    if len(linear) != 1:
        raise UnknownName(
            f"{model} has {len(linear)} classifiers, must be one", fix="Choose another network"
        )
    matcher = module.group_matcher(coarse=False)
    groups: dict[str, int] = group_parameters(module, matcher, reverse=True)
    return grouped(module, _with_buffers(module, groups), linear[0])


def _with_buffers(module: nn.Module, groups: dict[str, int]) -> dict[str, int]:
    """`groups` with every buffer in the group of the parameters next to it.

    timm's matchers are made for parameters; the same patterns would often miss a buffer.
    """
    completed = dict(groups)
    for name in module.state_dict():
        path = name
        while name not in completed:
            path = path.rpartition(".")[0]
            beside = [group for other, group in groups.items() if other.startswith(f"{path}.")]
            if beside or not path:
                completed[name] = max(beside, default=0)
    return completed


def record(module: nn.Module) -> dict[str, Any]:
    """What timm's record says about the published weights of a network and their images."""
    known: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    channels, size, _ = known["input_size"]
    if channels != 3:
        raise UnknownName(f"it takes images of {channels} channels, must be 3")
    interpolation = known.get("interpolation") or "bicubic"
    if interpolation not in ("bilinear", "bicubic"):
        raise UnknownName(f"its images are resized by '{interpolation}', which is not there")
    return {
        "file": (known.get("url") or "").rpartition("/")[2] or None,
        "url": known.get("url") or None,
        "hub": known.get("hf_hub_id") or None,
        "mean": list(known["mean"]),
        "std": list(known["std"]),
        "interpolation": interpolation,
        "resize": math.floor(size / (known.get("crop_pct") or 1)),
        "crop": size,
        "only": bool(known.get("fixed_input_size")),
    }
