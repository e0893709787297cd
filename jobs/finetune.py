"""The job ``finetune``: adapt a pretrained network to the target's images and test it.

The layers' treatments say what is frozen, fine-tuned and re-initialised.  The validation images
choose the epoch whose weights are kept; the test images are looked at once, afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ftd.errors import DataError, InputError
from ftd.job import Completed, Context, Input, Job, Params
from ftd.regular import full_path
from jobs import sources
from jobs.layers import Treatment, check_weights, numbered, spelled, treatments
from jobs.params.model import ModelParams
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams

PACKAGES = {"elpv": "elpv-dataset", "digits": "scikit-learn"}


class FinetuneParams(Params):
    """Which network, what happens to its layers, on which images, trained how."""

    model: ModelParams
    layers: str = Field(
        default="FT(1-last-1)R(last)",
        description="Layers that are frozen F(...), fine-tuned FT(...) and re-initialised R(...); "
        "`ftd layers MODEL` shows their numbers.",
    )
    target: TargetParams
    train: TrainParams


class Finetune(Job[FinetuneParams]):
    """Fine-tuning of one network on one target."""

    Params = FinetuneParams
    version = 1

    def resolve(self, params: FinetuneParams, base: Path) -> FinetuneParams:
        """Number the layers, make paths absolute and defaults explicit; refuse what cannot work."""
        model = params.model
        chosen = _treatments(params)
        check_weights(chosen, model.weights != "none")
        if set(chosen) == {Treatment.F}:
            raise InputError(
                f"layers '{params.layers}' freeze everything, so there is nothing to train",
                fix="Re-initialise the classifier: R(last)",
            )
        weights = sources.resolve(model.name, model.weights, base)
        return params.model_copy(
            update={
                "layers": spelled(chosen),
                "model": model.model_copy(update={"weights": weights}),
                "target": _resolved_target(params.target, base),
                "train": _resolved_train(params.train, params.target),
            }
        )

    def identity(self, params: FinetuneParams) -> Mapping[str, Any]:
        """Resolved parameters less what cannot matter: fields that this run does not use."""
        model, target, train = params.model, params.target, params.train
        wanted = _preprocessing(model)
        return {
            "model": model.name,
            "weights": sources.identity(model.name, model.weights),
            "preprocessing": [wanted.mean, wanted.std, wanted.interpolation],
            "layers": params.layers,
            "target": target.model_dump(mode="json", exclude=_unused_of_target(target)),
            "train": {
                **train.model_dump(mode="json", exclude=_unused_of_train(train, target)),
                **_peak_learning_rates(params),
            },
        }

    def inputs(self, params: FinetuneParams) -> Mapping[str, Input]:
        """The target's images, and the file or package that holds the weights."""
        target = params.target
        if target.folder is not None:
            images = Input("folder", target.folder)
        else:
            images = Input("package", PACKAGES[target.dataset])
        return {"target": images, **sources.inputs(params.model.name, params.model.weights)}

    def primary_metric(self, params: FinetuneParams) -> str:
        """AUROC where two unbalanced classes are known beforehand, else top-1."""
        return "test/auroc" if params.target.dataset == "elpv" else "test/top1"

    def run(self, params: FinetuneParams, context: Context) -> Completed:
        """Prepare the images, build the network, train it, test what is kept."""
        # torch is imported here: whoever only plans runs does not need it
        from jobs.data.prepare import prepared
        from jobs.measure.conclude import conclude
        from jobs.models.build import build
        from jobs.models.weights import load
        from jobs.train import numerics
        from jobs.train.loop import Training
        from jobs.train.memory import keep_freed_memory
        from jobs.train.state import FILES, TrainingState

        keep_freed_memory()
        numerics.configure(context.numerics, context.threads)
        context.fingerprint(numerics.fingerprint(context.numerics, context.device))
        checkpoint = context.restore()
        preprocessing = _preprocessing(params.model)
        data = prepared(
            params.target,
            self.inputs(params)["target"],
            preprocessing.interpolation,
            context,
            checkpoint,
            FILES,
        )
        _check_selection(params.train, len(data.splits.val), len(data.listing.class_names))
        network = build(
            params.model.name,
            data.listing.class_names,
            _treatments(params),
            load(params.model.name, params.model.weights, allow_downloads=context.allow_downloads),
            init_seed=context.seeds["init"],
            dropout_seed=context.seeds["dropout"],
        )
        training = Training.on(data, params.target, params.train, preprocessing, context)
        state = TrainingState.initial(network, params.train, context.device)
        if checkpoint is not None and checkpoint.step > 0:
            state.restore(checkpoint)
        training.run(state)
        return conclude(training, state, params.layers)


def _treatments(params: FinetuneParams) -> tuple[Treatment, ...]:
    return treatments(params.layers, len(numbered(params.model.name)))


def _preprocessing(model: ModelParams) -> sources.Preprocessing:
    return sources.preprocessing(
        model.name, mean=model.mean, std=model.std, interpolation=model.interpolation
    )


def _resolved_target(target: TargetParams, base: Path) -> TargetParams:
    explicit: dict[str, Any] = {"crop_size": target.crop_size or target.decode_size}
    split = "random"
    if target.dataset == "elpv":
        split = "blocks"
    if target.folder is not None:
        root = full_path(target.folder, base)
        if not root.is_dir():
            raise DataError(
                f"there is no folder {root}", where="target.folder", fix="Check the path"
            )
        explicit["folder"] = str(root)
        if (root / "train").is_dir() and (root / "test").is_dir():
            split = "given"
        elif target.split == "given":
            raise DataError(
                f"{root} has no folders train and test",
                where="target.split",
                fix="Make them (val is optional), or use split: random",
            )
    return target.model_copy(update={**explicit, "split": target.split or split})


def _resolved_train(train: TrainParams, target: TargetParams) -> TrainParams:
    validates = target.val_fraction > 0 if target.val_per_class is None else target.val_per_class
    if train.keep == "best" and not validates and target.split != "given":
        raise InputError(
            "train.keep: best needs validation images, and the target asks for none",
            fix="Use keep: last, or set target.val_per_class",
        )
    default = "val/balanced_accuracy" if target.dataset == "elpv" else "val/top1"
    return train.model_copy(update={"select": train.select or default})


def _check_selection(train: TrainParams, num_val: int, num_classes: int) -> None:
    """Refuse a selection that these images cannot give."""
    if train.keep == "best" and num_val == 0:
        raise DataError(
            "train.keep: best needs validation images, and there are none",
            fix="Use keep: last, or set target.val_fraction or target.val_per_class",
        )
    if train.keep == "best" and train.select == "val/auroc" and num_classes != 2:
        raise DataError(
            f"train.select: val/auroc is for two classes, the target has {num_classes}",
            fix="Use val/top1 or val/balanced_accuracy",
        )


def _unused_of_target(target: TargetParams) -> set[str]:
    unused = {"folder"}  # where it is; what is in it enters the key as an input
    if target.dataset != "elpv":
        unused.add("elpv")
    if target.val_per_class is not None:
        unused.add("val_fraction")
    if target.split == "given":
        unused.add("test_fraction")
    return unused


def _unused_of_train(train: TrainParams, target: TargetParams) -> set[str]:
    unused = {"lr", "head_lr_factor"}  # their products count, see _peak_learning_rates
    unused |= {"betas"} if train.optimizer == "sgd" else {"momentum", "nesterov"}
    if train.schedule != "step":
        unused |= {"gamma", "step_size_steps", "step_size_epochs"}
    if target.crop_size == target.decode_size:
        unused.add("crop")
    if train.keep == "last":
        unused.add("select")
    return unused


def _peak_learning_rates(params: FinetuneParams) -> dict[str, float]:
    """The peak learning rate of each treatment that occurs; frozen layers have none."""
    lr, chosen = params.train.lr, _treatments(params)
    rates = {Treatment.FT: lr, Treatment.R: lr * params.train.head_lr_factor}
    return {f"lr_{treatment}": rate for treatment, rate in rates.items() if treatment in chosen}
