"""Starting from the weights that another run kept: of the same network, for the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from ftd.errors import WeightsError
from ftd.job import Context
from jobs.layers import Treatment
from jobs.models.build import skeleton
from jobs.models.numbering import classifier_of
from jobs.models.weights import State, load, read
from jobs.params.model import ModelParams
from jobs.records import Preprocessing
from jobs.sources import WeightsRun


@dataclass(frozen=True)
class Kept:
    """Weights that a run kept, and what it told of them; ``run`` is what errors call it."""

    run: str
    state: State
    model: str
    class_names: tuple[str, ...]
    layers: str  # how they were treated
    preprocessing: Mapping[str, Any]  # the fields of Preprocessing, and size and decode_size


def kept_weights(weights: WeightsRun, context: Context) -> Kept:
    """What the run kept that `weights` names.  Raises WeightsError for weights of no use."""
    source = weights.kept
    path = context.kept(source.called, source.file)
    state, told = read(path), _told(path, source.called)
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise WeightsError(
            f"{source.called} diverged, so its weights mean nothing", fix="Name another run"
        )
    return Kept(
        source.called,
        state,
        told["model"],
        tuple(told["class_names"]),
        told["layers"],
        told["preprocessing"],
    )


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
    kept = kept_weights(model.weights, context)
    if kept.model != model.name:
        raise WeightsError(f"{kept.run} kept weights of {kept.model}, not of {model.name}")
    if (model.mean, model.std, model.interpolation) == (None, None, None):
        _check_images(kept.run, kept.preprocessing, preprocessing)
    if treatments[-1] == Treatment.R:
        return kept.state
    return _with_rows(kept, class_names)


def _told(path: Path, run: str) -> Mapping[str, Any]:
    """What the file says about its tensors."""
    with safetensors.safe_open(path, "pt") as stream:
        metadata = stream.metadata() or {}
    if "ftd" not in metadata:
        raise WeightsError(
            f"{path} does not say which network it is of",
            fix=f"{run} is of another job: give its file instead, model.weights: {{file: ...}}",
        )
    told: Mapping[str, Any] = json.loads(metadata["ftd"])
    return told


def _check_images(run: str, told: Mapping[str, Any], preprocessing: Preprocessing) -> None:
    """Raises WeightsError when the run saw its images otherwise, and nobody said so."""
    for name, value in asdict(preprocessing).items():
        theirs = told[name]
        if value != (tuple(theirs) if isinstance(theirs, list) else theirs):
            raise WeightsError(
                f"{run} was trained on images with {name} {theirs}",
                fix=f"Set model.{name}: {theirs} (or another value, if that is what you want)",
            )


def _with_rows(kept: Kept, ours: Sequence[str]) -> State:
    """The kept tensors with the classifier's rows in the order of our classes."""
    theirs = kept.class_names
    if set(theirs) != set(ours):
        raise WeightsError(
            f"{kept.run} knows other classes ({_few(theirs)}) than the target ({_few(ours)})",
            fix="Re-initialise the classifier: R(last)",
        )
    order = torch.tensor([theirs.index(name) for name in ours])
    classifier = classifier_of(*skeleton(kept.model, len(ours)), kept.model)
    return {
        name: tensor[order] if name.startswith(f"{classifier}.") else tensor
        for name, tensor in kept.state.items()
    }


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
