"""Starting from the weights that another run kept: of the same network, for the same images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ftd.errors import WeightsError
from ftd.job import Context
from jobs.layers import Treatment
from jobs.models.build import skeleton
from jobs.models.description import Description
from jobs.models.numbering import classifier_of
from jobs.models.weights import State, load, read
from jobs.params.model import ModelParams
from jobs.records import Preprocessing
from jobs.sources import WeightsRun


def starting_weights(
    model: ModelParams,
    class_names: Sequence[str],
    treatments: Sequence[Treatment],
    preprocessing: Preprocessing,
    context: Context,
) -> State | None:
    """The tensors that a network for `class_names` starts from; None for ``none``.

    Raises WeightsError for weights that are missing, damaged, or of another network or purpose.
    """
    if not isinstance(model.weights, WeightsRun):
        return load(model.name, model.weights, allow_downloads=context.allow_downloads)
    source = model.weights.kept
    run, path = source.called, context.kept(source.called, source.file)
    told, state = Description.read(path), read(path)
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise WeightsError(f"{run} diverged, so its weights mean nothing", fix="Name another run")
    told.check_model(run, model.name)
    if (model.mean, model.std, model.interpolation) == (None, None, None):
        _check_images(run, told.preprocessing, preprocessing)
    if treatments[-1] == Treatment.R:
        return state
    if set(told.class_names) != set(class_names):
        raise WeightsError(
            f"{run} knows other classes ({few(told.class_names)}) than the target "
            f"({few(class_names)})",
            fix="Re-initialise the classifier: R(last)",
        )
    order = [told.class_names.index(name) for name in class_names]
    return with_rows(state, told.model, order)


def with_rows(state: State, model: str, order: Sequence[int]) -> State:
    """The tensors of `model` with the classifier's rows, one per class, in this `order`."""
    classifier, rows = classifier_of(*skeleton(model, len(order)), model), torch.tensor(order)
    return {
        name: tensor[rows] if name.startswith(f"{classifier}.") else tensor
        for name, tensor in state.items()
    }


def _check_images(run: str, theirs: Preprocessing, ours: Preprocessing) -> None:
    """Raises WeightsError when the run saw its images otherwise, and nobody said so."""
    wanted = ours.as_json
    for name, value in theirs.as_json.items():
        if value != wanted[name]:
            raise WeightsError(
                f"{run} was trained on images with {name} {value}",
                fix=f"Set model.{name}: {value} (or another value, if that is what you want)",
            )


def few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
