"""What a run uses: steps of training within a budget, and labelled images.  Knows no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ftd.errors import InputError
from ftd.job import Budget, Params
from jobs.params.target import TargetParams


def with_budget(
    params: Mapping[str, Any], budget: Budget, model: type[Params]
) -> Mapping[str, Any]:
    """Parameters as written, with ``train.steps`` or ``train.epochs`` that `budget` stands for.

    Images are counted in whole batches: steps = ceil(images / ``train.batch_size``).  For a
    job that trains on the target alone ``total_images`` means the same as ``target_images``.
    Raises InputError where the length of training is given already.
    """
    train = params.get("train", {})
    if not isinstance(train, Mapping):
        return params  # validation tells
    for name in ("steps", "epochs"):
        if train.get(name) is not None:
            raise InputError(
                f"train.{name} is given, and the budget says how long to train",
                where=f"train.{name}",
                fix="Keep one of them",
            )
    if budget.match in ("steps", "epochs"):
        return _training(params, train, budget.match, budget.value)
    # validated with some length, to know how many images a step has
    parsed: Any = model.model_validate(_training(params, train, "steps", 1))
    return _training(params, train, "steps", math.ceil(budget.value / parsed.train.batch_size))


def labels_used(target: TargetParams) -> str:
    """``10 per class, val 50 per class``: what the target's parameters say of labelled images."""
    train = training_labels(target)
    val = _said(target.val_per_class, target.val_count, target.val_fraction, "")
    if target.split == "given" and target.val_per_class is None and target.val_count is None:
        val = f"as given, else {val}"
    return f"{train}, val {val}"


def training_labels(target: TargetParams) -> str:
    """The part of it that is trained on."""
    return _said(target.per_class, target.num_images, target.train_fraction, "the rest")


def _training(
    params: Mapping[str, Any], train: Mapping[str, Any], name: str, value: int
) -> dict[str, Any]:
    return {**params, "train": {**train, name: value}}


def _said(per_class: int | None, total: int | None, share: float | None, otherwise: str) -> str:
    if per_class is not None:
        return f"{per_class} per class" if per_class else "0"
    if total is not None:
        return str(total)
    return f"{share:.0%}" if share is not None else otherwise
