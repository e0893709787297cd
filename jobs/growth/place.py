"""Where a network can grow: its classifier, the last layers before it, and what they are given.

In networks with fully-connected tops (AlexNet, VGG, mini8) these are fc8, fc7 and fc6, as in the
paper.  In networks that end in a mean over the picture or in tokens (ResNet, EfficientNet-Lite,
ConvNeXt, ViT) the representation that the classifier reads takes the place of h7, and the last
layer that learns features (not a normalisation) that of fc7: new units beside it read what it
reads, each at every place of the map or at every token, ReLU, and then, like its own features,
their mean is taken.  For EfficientNet-Lite that is the widening of its last convolution; for a
residual network a parallel branch beside the last block.  There is no BatchNorm in it: where blocks
are scaled it would only do the same a second time.  fc_a and scaling mean the same everywhere.
What copies or bends old units (copy_rand, net2wider, net2deeper, lora) and units beside fc6 need
fully-connected layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ftd.errors import InputError
from jobs.growth.parts import as_vectors
from jobs.growth.structure import Dims
from jobs.models.network import Layer, Network
from jobs.models.numbering import classifier_of

WHERE = "growth.type"


@dataclass(frozen=True)
class Place:
    """Paths of modules: the classifier, and the first ones of the last two layers before it.

    ``host`` and ``host_below`` are those layers' names.  ``below`` is empty where the last two are
    not both fully connected, and ``fully_connected`` says whether the last one is.
    """

    classifier: str
    last: str
    host: str
    below: str = ""
    host_below: str = ""
    fully_connected: bool = False

    @property
    def num_fully_connected(self) -> int:
        """How many of the last two layers before the classifier are fully connected, from the
        end."""
        return 2 if self.below else int(self.fully_connected)


def place_in(module: nn.Module, layers: tuple[Layer, ...], model: str, classifier: str) -> Place:
    """Where `module` can grow; `layers` may hold parts of earlier growths.

    Raises InputError for a network whose classifier is no linear layer.
    """
    head = module.get_submodule(classifier)
    if not isinstance(head, nn.Linear):
        raise InputError(
            f"the classifier of {model} is no linear layer, so nothing can be grown before it",
            where=WHERE,
            fix="Choose another network, or growth.type: none",
        )
    old = [layer for layer in layers[:-1] if not layer.host and _learns_features(module, layer)]
    if not old:
        raise InputError(f"{model} has no layer before its classifier", where=WHERE)
    last = _parts_with_tensors(module, old[-1])
    if not _is_linear(module, last):
        return Place(classifier, last[0], old[-1].name)
    below = _parts_with_tensors(module, old[-2]) if len(old) > 1 else []
    if not _is_linear(module, below):
        return Place(classifier, last[0], old[-1].name, fully_connected=True)
    return Place(classifier, last[0], old[-1].name, below[0], old[-2].name, True)


def classifier_path(network: Network) -> str:
    """The path of the classifier's module; it may have grown."""
    return classifier_of(network.module, network.layers, network.model)


def _learns_features(module: nn.Module, layer: Layer) -> bool:
    """Whether a layer does more than normalise: whether it has weights of more than one axis."""
    return any(
        parameter.dim() > 1 for name, parameter in module.named_parameters() if layer.holds(name)
    )


def _parts_with_tensors(module: nn.Module, layer: Layer) -> list[str]:
    return [path for path in layer.modules if module.get_submodule(path).state_dict()]


def _is_linear(module: nn.Module, paths: list[str]) -> bool:
    """Whether a layer is fully connected and nothing else."""
    return len(paths) == 1 and isinstance(module.get_submodule(paths[0]), nn.Linear)


@torch.no_grad()
def dims_of(network: Network, place: Place, size: int) -> Dims:
    """The sizes of `network`, found by showing it an empty picture of `size` pixels.

    0 where what a layer is given is no single vector, map or row of tokens; InputError where that
    is the classifier.
    """
    given: dict[str, Any] = {}

    def listen(path: str) -> Any:
        def before(_part: nn.Module, args: tuple[Any, ...]) -> None:
            given[path] = args[0] if args else None

        return network.module.get_submodule(path).register_forward_pre_hook(before)

    paths = [path for path in (place.below, place.last, place.classifier) if path]
    handles = [listen(path) for path in paths]
    was_training = network.module.training
    network.eval()
    try:
        parameter = next(network.module.parameters())
        picture = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
        logits = network(picture)
    finally:
        for handle in handles:
            handle.remove()
        if was_training:
            network.train()
    widths = {path: _num_features(given.get(path)) for path in paths}
    read = given.get(place.classifier)
    if not isinstance(read, torch.Tensor) or read.dim() != 2:
        raise InputError(
            f"{network.model} gives its classifier no vector, so nothing can be grown before it",
            where=WHERE,
            fix="Choose another network, or growth.type: none",
        )
    return Dims(
        widths[place.classifier],
        logits.shape[1],
        widths[place.last],
        widths[place.below] if place.below else 0,
        units_of(network.module, place),
    )


def units_of(module: nn.Module, place: Place) -> int:
    """The number of units of fc7; 0 where it is not fully connected."""
    part = module.get_submodule(place.last)
    return part.out_features if isinstance(part, nn.Linear) and place.fully_connected else 0


def _num_features(given: object) -> int:
    if not isinstance(given, torch.Tensor) or given.dim() not in (2, 3, 4):
        return 0
    return int(as_vectors(given).shape[-1])
