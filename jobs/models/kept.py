"""Starting from the weights that another run kept: of the same network, for the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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

FILE = "weights.safetensors"


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
    run = model.weights.run
    path = context.kept(run, FILE)
    state, told = read(path), _told(path, run)
    if told["model"] != model.name:
        raise WeightsError(f"{run} kept weights of {told['model']}, not of {model.name}")
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise WeightsError(f"{run} diverged, so its weights mean nothing", fix="Name another run")
    if (model.mean, model.std, model.interpolation) == (None, None, None):
        _check_images(run, told["preprocessing"], preprocessing)
    if treatments[-1] == Treatment.R:
        return state
    return _with_rows(state, run, model.name, told["class_names"], class_names)


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


def _with_rows(
    state: State, run: str, model: str, theirs: Sequence[str], ours: Sequence[str]
) -> State:
    """`state` with the classifier's rows in the order of our classes."""
    if set(theirs) != set(ours):
        raise WeightsError(
            f"{run} knows other classes ({_few(theirs)}) than the target ({_few(ours)})",
            fix="Re-initialise the classifier: R(last)",
        )
    order = torch.tensor([list(theirs).index(name) for name in ours])
    classifier = classifier_of(*skeleton(model, len(ours)), model)
    rows = {f"{classifier}.{part}" for part in ("weight", "bias")}
    return {name: tensor[order] if name in rows else tensor for name, tensor in state.items()}


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
