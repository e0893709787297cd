"""From a network's name to a network ready to train: skeleton, weights, treatment of its layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ftd.errors import InputError, UnknownName, closest
from jobs.growth.attach import regrown, treatments_of
from jobs.layers import Treatment, check_weights
from jobs.models import alexnet, deep, efficientnet_lite, mini8, timm_zoo, vgg, zoo
from jobs.models.construct import constructed
from jobs.models.dropout import DropoutKeys
from jobs.models.exact import make_exact
from jobs.models.initialise import initial_state
from jobs.models.network import Layer, Network, layer_index, versioned
from jobs.models.numbering import classifier_of
from jobs.models.treatment import freeze
from jobs.models.weights import State, fitted
from jobs.timm_names import is_timm

FAMILIES = (alexnet, deep, efficientnet_lite, mini8, vgg, zoo)


def skeleton(model: str, num_classes: int) -> tuple[nn.Module, tuple[Layer, ...]]:
    """The network's module, without memory for its weights, and its numbered layers."""
    family = next((family for family in FAMILIES if model in family.MODELS), None)
    if family is None and not is_timm(model):
        known = [name for family in FAMILIES for name in family.MODELS]
        raise UnknownName(f"no network is called '{model}'", fix=closest(model, known))
    construct = timm_zoo.skeleton if family is None else family.skeleton
    return constructed(lambda: construct(model, num_classes))


def build(
    model: str,
    class_names: Sequence[str],
    treatments: Sequence[Treatment],
    pretrained: State | None,
    *,
    init_seed: int,
    dropout_seed: int,
) -> Network:
    """The network `model` for `class_names` on the CPU, one treatment per layer.

    F and FT layers get their tensors from `pretrained` (see :func:`jobs.models.weights.load`), R
    layers are initialised; without `pretrained` all are (training from scratch).  Weights of a
    grown network bring its grown parts along, each treated as the layer beside it.  Raises
    UnknownName, WeightsError when `pretrained` does not fit, InputError for F without weights.
    """
    if len(set(class_names)) != len(class_names):
        raise InputError("class names must differ from one another", fix="Rename a class")
    module, layers = skeleton(model, len(class_names))
    if len(layers) != len(treatments):
        raise InputError(f"{model} has {len(layers)} layers, got {len(treatments)} treatments")
    check_weights(treatments, pretrained is not None)
    keys = DropoutKeys(dropout_seed)
    make_exact(module, layers, keys)
    classifier = classifier_of(module, layers, model)
    layers = regrown(module, layers, model, classifier, pretrained, keys)
    treatments = treatments_of(layers, treatments)
    empty = module.state_dict()
    drawn = [
        name
        for name in empty
        if pretrained is None or treatments[layer_index(layers, name)] == Treatment.R
    ]
    state = initial_state(
        module, drawn, classifier=classifier, class_names=class_names, seed=init_seed
    )
    if pretrained is not None:
        shapes = {name: tensor.shape for name, tensor in empty.items()}
        kept = [name for name in empty if name not in state]
        state |= fitted(pretrained, shapes, kept, classifier)
    # strict: no tensor is left without memory
    module.load_state_dict(versioned(module, state), assign=True)
    freeze(module, layers, treatments)
    return Network(model, module, layers, treatments, tuple(class_names), keys)
