"""The training recipe as a spec writes it: checked against network and target, and what of it
determines a run.  Knows no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ftd.errors import InputError
from jobs import targets
from jobs.layer_rates import layer_factors
from jobs.layers import Treatment
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams


def resolve(train: TrainParams, target: TargetParams, names: Sequence[str]) -> TrainParams:
    """`train` with what it selects by, and lr where it is searched for, made explicit; for layers
    called `names`.

    Raises InputError for what cannot work on the resolved `target` and these layers.
    """
    if not targets.validates(target):
        for wanted, is_wanted in (
            ("keep: best", train.keep == "best"),
            ("early_stop", train.early_stop is not None),
        ):
            if is_wanted:
                raise InputError(
                    f"train.{wanted} needs validation images, and the target asks for none",
                    fix="Use keep: last, or set target.val_per_class",
                )
    if target.multi_label:
        for wanted, is_wanted in (
            ("class_weights", train.class_weights is not None),
            ("sampling: balanced", train.sampling == "balanced"),
        ):
            if is_wanted:
                raise InputError(
                    f"train.{wanted} is for one label per image, the target has several",
                    fix="Leave it out",
                )
    layer_factors(train.lr_factors, train.layer_decay, names)
    select = train.select or targets.default_selection(target)
    # what is found is multiplied with lr
    lr = train.lr if train.lr_find is None else 1.0
    return train.model_copy(update={"select": select, "lr": lr})


def identity(
    train: TrainParams, target: TargetParams, chosen: Sequence[Treatment], names: Sequence[str]
) -> dict[str, Any]:
    """What of the resolved `train` determines a run whose layers are treated as `chosen`, as JSON.

    What this run does not use is left out, and so is what is off: another knob leaves keys alone.
    """
    return {
        **train.model_dump(mode="json", exclude=_unused(train, target) | _off(train)),
        **_used_parts(train, chosen),
        **_peak_learning_rates(train, chosen, names),
    }


def _unused(train: TrainParams, target: TargetParams) -> set[str]:
    unused = {"lr", "head_lr_factor", "lr_factors", "layer_decay"}  # see _peak_learning_rates
    unused |= {"l2_sp", "batchnorm", "frozen_dropout", "unfreeze"}  # see _used_parts
    unused |= {"betas"} if train.optimizer == "sgd" else {"momentum", "nesterov"}
    if train.schedule != "step":
        unused |= {"gamma", "step_size_steps", "step_size_epochs"}
    if target.crop_size == target.decode_size or train.augment.resized_crop is not None:
        unused.add("crop")
    if train.keep == "last" and train.early_stop is None:
        unused.add("select")
    if train.l2_sp is not None:
        unused.add("weight_decay")
    if train.micro_batch_size is not None and train.micro_batch_size >= train.batch_size:
        unused.add("micro_batch_size")
    return unused


# Knobs whose default is that nothing happens.
_OFF = (
    "clip_norm",
    "label_smoothing",
    "class_weights",
    "lr_find",
    "sampling",
    "augment",
    "micro_batch_size",
    "precision",
    "channels_last",
    "ema_decay",
    "early_stop",
    "test_views",
)


def _off(train: TrainParams) -> set[str]:
    defaults = TrainParams.model_fields
    return {name for name in _OFF if getattr(train, name) == defaults[name].default}


def _used_parts(train: TrainParams, chosen: Collection[Treatment]) -> dict[str, Any]:
    """What concerns layers of one treatment, where there are such layers."""
    frozen, tuned, new = (treatment in chosen for treatment in ("F", "FT", "R"))
    norm = train.batchnorm
    parts: dict[str, Any] = {
        "batchnorm_frozen": norm.frozen if frozen and norm.frozen != "stored" else None,
        "batchnorm_tuned": norm.tuned if tuned and norm.tuned != "train" else None,
        "batchnorm_group_size": norm.group_size if new or norm.tuned == "train" else None,
        "frozen_dropout": train.frozen_dropout if frozen and train.frozen_dropout == "on" else None,
        "unfreeze": train.unfreeze.model_dump(mode="json") if train.unfreeze and tuned else None,
    }
    if train.l2_sp is not None:
        parts["l2_sp_alpha"] = train.l2_sp.alpha if tuned else None
        parts["l2_sp_beta"] = train.l2_sp.beta if new else None
    return {name: value for name, value in parts.items() if value is not None}


def _peak_learning_rates(
    train: TrainParams, chosen: Sequence[Treatment], names: Sequence[str]
) -> dict[str, Any]:
    """The peak learning rate of each treatment that occurs; frozen layers have none.

    Layers that learn at a multiple of it are listed by number.
    """
    rates = {Treatment.FT: train.lr, Treatment.R: train.lr * train.head_lr_factor}
    found: dict[str, Any] = {
        f"lr_{treatment}": rate for treatment, rate in rates.items() if treatment in chosen
    }
    factors = layer_factors(train.lr_factors, train.layer_decay, names)
    special = {
        str(number): factor
        for number, (factor, treatment) in enumerate(zip(factors, chosen, strict=True), start=1)
        if factor != 1 and treatment != Treatment.F
    }
    return found | ({"lr_factors": special} if special else {})
