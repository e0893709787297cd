"""Putting new parts into a network: nothing of the old network is moved, renamed or resized.

New parts hang under ``grown`` and are called by hooks; what the classifier is given changes, and
its new columns are tensors of their own.  Only fc_a gives it other units to read: it becomes a new
one then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftd.errors import InputError, WeightsError
from jobs.growth.parts import Generation, WiderLinear
from jobs.growth.place import WHERE, Place, place_in, units_of
from jobs.growth.structure import ROOT, Dims, Structure, structures_in
from jobs.layers import Treatment
from jobs.models.dropout import DropoutKeys, KeyedDropout
from jobs.models.network import Layer

if TYPE_CHECKING:
    from jobs.models.weights import State


def regrown(
    module: nn.Module,
    layers: tuple[Layer, ...],
    model: str,
    classifier: str,
    state: State | None,
    keys: DropoutKeys,
) -> tuple[Layer, ...]:
    """Give `module` the parts that the network grew whose tensors are `state`; all its layers.

    The new tensors are empty.  Raises WeightsError for parts that this network cannot have.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in (state or {}).items()}
    for number, structure in enumerate(structures_in(shapes), start=1):
        place = place_in(module, layers, model, classifier)
        head = module.get_submodule(classifier)
        assert isinstance(head, nn.Linear)
        try:
            dims = _dims_in(shapes, number, structure, module, place)
        except (KeyError, IndexError) as error:
            raise WeightsError(
                f"the weights hold parts of a grown network, but not all of growth {number}",
                fix="Give all tensors of a grown network, or drop them with key_map: {grown: null}",
            ) from error
        layers = attach(module, layers, place, structure, dims, number, keys)
    return layers


def _dims_in(
    shapes: dict[str, tuple[int, ...]],
    number: int,
    structure: Structure,
    module: nn.Module,
    place: Place,
) -> Dims:
    """The sizes that a growth started from, as its tensors' shapes tell."""
    head = module.get_submodule(place.classifier)
    assert isinstance(head, nn.Linear)
    width = _num_read(head)
    part = f"{ROOT}.{number}"
    into_below = shapes[f"{part}.below.weight"][1] if structure.below else 0
    into_last = shapes[f"{part}.beside.weight"][1] - structure.below if structure.beside else 0
    into_last = shapes[f"{part}.lora.down"][1] if structure.rank else into_last
    return Dims(width, head.out_features, into_last, into_below, units_of(module, place))


def attach(
    module: nn.Module,
    layers: tuple[Layer, ...],
    place: Place,
    structure: Structure,
    dims: Dims,
    number: int,
    keys: DropoutKeys,
) -> tuple[Layer, ...]:
    """Give `module` the empty parts of its growth `number`; returns all its layers.

    Raises InputError when it has no place for them.
    """
    _check(structure, place, dims)
    new = _new_layers(structure, place, number)
    dropouts = _dropouts(module, layers, place, new, keys)
    generation = Generation(structure, dims, dropouts)
    if not hasattr(module, ROOT):
        module.add_module(ROOT, nn.Module())
    module.get_submodule(ROOT).add_module(str(number), generation)
    last = module.get_submodule(place.last)
    if structure.below:
        module.get_submodule(place.below).register_forward_pre_hook(generation.see_below)
    if structure.beside:
        last.register_forward_pre_hook(generation.see_last)
    if structure.rank:
        last.register_forward_hook(generation.lora.beside)
    _replace_classifier(module, place.classifier, structure, number)
    module.get_submodule(place.classifier).register_forward_pre_hook(generation.join)
    return (*layers[:-1], *new.values(), layers[-1])


def _check(structure: Structure, place: Place, dims: Dims) -> None:
    if structure.beside and not dims.into_last:
        raise InputError(
            f"{place.host}, the last layer before the classifier, is given no single vector, map "
            "or row of tokens, so no units can stand beside it",
            where=WHERE,
            fix="Use growth.type: da, or another network",
        )
    if structure.below and not place.below:
        raise InputError(
            "units beside fc6 need a network with two fully-connected layers before its classifier",
            where=WHERE,
            fix="Use growth.type: wa, or a network such as alexnet, vgg16 or mini8",
        )
    if structure.rank and not place.fully_connected:
        raise InputError(
            "lora needs a network with a fully-connected layer before its classifier",
            where=WHERE,
            fix="Use another growth.type, or a network such as alexnet, vgg16 or mini8",
        )


def _new_layers(structure: Structure, place: Place, number: int) -> dict[str, Layer]:
    """The layer of each part that there is, by the part's name, in the order of computation."""
    nth = "" if number == 1 else str(number)
    there = {
        "below": (f"{place.host_below}+", structure.below),
        "scale_below": ("scale_below", structure.scales_below),
        "beside": (f"{place.host}+", structure.beside),
        "hidden": ("hidden", structure.hidden),
        "scale": ("scale", structure.scaled and (structure.joins or not structure.top)),
        "top": ("fc_a", structure.top),
        "scale ": ("scale", structure.scaled and structure.top and not structure.joins),
        "lora": ("lora", structure.rank),
    }
    found = {}
    for key, (name, is_there) in there.items():
        if is_there:
            part = key.strip()
            host = place.host_below if part in ("below", "scale_below") else place.host
            found[part] = Layer(f"{name}{nth}", (f"{ROOT}.{number}.{part}",), host)
    return found


def _dropouts(
    module: nn.Module,
    layers: tuple[Layer, ...],
    place: Place,
    new: dict[str, Layer],
    keys: DropoutKeys,
) -> tuple[KeyedDropout | None, KeyedDropout | None]:
    """Dropouts of new units: as of the old ones beside them, before the layer that reads those."""
    last = next(layer for layer in layers if layer.name == place.host)

    def like(layer: Layer, part: str) -> KeyedDropout | None:
        rates = [
            found.rate
            for path, found in module.named_modules()
            if type(found) is KeyedDropout and layer.holds(path)
        ]
        return KeyedDropout(rates[0], new[part].name, keys) if rates and part in new else None

    part = "hidden" if "hidden" in new else "beside"
    return like(last, "below"), like(layers[-1], part)


def _replace_classifier(module: nn.Module, path: str, structure: Structure, number: int) -> None:
    """The classifier that reads fc_a, or new columns for the new units it reads."""
    old = module.get_submodule(path)
    assert isinstance(old, nn.Linear)
    new: nn.Linear = old
    if structure.top and structure.top != _num_read(old):
        new = nn.Linear(structure.top, old.out_features, old.bias is not None, device="meta")
    elif structure.joins and not structure.top:
        wider = old if isinstance(old, WiderLinear) else WiderLinear(old)
        columns = structure.beside + structure.hidden
        wider.more[str(number)] = nn.Parameter(
            torch.empty(old.out_features, columns, device="meta")
        )
        new = wider
    if new is not old:
        new._forward_pre_hooks.update(old._forward_pre_hooks)  # what earlier growths give it
        module.set_submodule(path, new)


def _num_read(head: nn.Linear) -> int:
    more = head.more.values() if isinstance(head, WiderLinear) else ()
    return int(head.weight.shape[1]) + sum(int(columns.shape[1]) for columns in more)


def treatments_of(layers: Sequence[Layer], chosen: Sequence[Treatment]) -> tuple[Treatment, ...]:
    """The treatment of each of `layers`: `chosen` for the old ones, of grown parts their host's."""
    old = [layer.name for layer in layers if not layer.host]
    known = dict(zip(old, chosen, strict=True))
    return tuple(known[layer.host or layer.name] for layer in layers)
