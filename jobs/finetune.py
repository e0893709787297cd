"""The job ``finetune``: adapt a pretrained network to the target's images and test it.

The layers' treatments say what is frozen, fine-tuned and re-initialised.  The validation images
choose the epoch whose weights are kept; the test images are looked at once, afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ftd.errors import InputError
from ftd.job import Budget, Checkpoint, Completed, Context, Input, Job, Params
from jobs import budget as budgets
from jobs import recipe, records, sources, targets
from jobs.layers import Treatment, check_weights, numbered, spelled, treatments
from jobs.params.model import ModelParams
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams

if TYPE_CHECKING:
    from jobs.data.prepare import Data
    from jobs.train.whole import Additions


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

    Params: ClassVar[type[FinetuneParams]] = FinetuneParams
    version = 1
    preload: ClassVar[tuple[str, ...]] = (
        "jobs.train.whole",
        "torchvision.models",
    )

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
        from_scratch = set(chosen) == {Treatment.R}  # nothing is kept of any weights
        weights = "none" if from_scratch else sources.resolve(model.name, model.weights, base)
        target = targets.resolve(params.target, base)
        records.check_size(model.name, target.crop_size or target.decode_size)
        return params.model_copy(
            update={
                "layers": spelled(chosen),
                "model": model.model_copy(update={"weights": weights}),
                "target": target,
                "train": recipe.resolve(params.train, target, numbered(model.name)),
            }
        )

    def with_budget(self, params: Mapping[str, Any], budget: Budget) -> Mapping[str, Any]:
        """Steps or epochs of training; for images, steps of whole batches."""
        return budgets.with_budget(params, budget, self.Params)

    def labels_used(self, params: FinetuneParams) -> str:
        """Training and validation images, as far as the parameters say."""
        return budgets.labels_used(params.target)

    def identity(self, params: FinetuneParams) -> Mapping[str, Any]:
        """Resolved parameters less what cannot matter: fields that this run does not use."""
        model, target, train = params.model, params.target, params.train
        return {
            **model.identity,
            "layers": params.layers,
            "target": targets.identity(target),
            "train": recipe.identity(train, target, _treatments(params), numbered(model.name)),
        }

    def inputs(self, params: FinetuneParams) -> Mapping[str, Input]:
        """The target's images and labels, and the file or package that holds the weights."""
        return {
            **targets.inputs(params.target),
            **sources.inputs(params.model.name, params.model.weights),
        }

    def primary_metric(self, params: FinetuneParams) -> str:
        """What matters most for this kind of target."""
        return f"test/{targets.default_metric(params.target)}"

    def keeps(self, params: FinetuneParams) -> tuple[str, ...]:
        """The weights and the predictions."""
        return sources.WEIGHTS, sources.PREDICTIONS

    def run(self, params: FinetuneParams, context: Context) -> Completed:
        """Prepare the images, build the network, train it, test what is kept."""
        # torch is imported here: whoever only plans runs does not need it
        from jobs.data.prepare import prepared
        from jobs.train.state import FILES
        from jobs.train.whole import Wanted, train_and_test

        additions = self.additions(params, context)

        def prepare(checkpoint: Checkpoint | None) -> Data:
            source = self.inputs(params)["target"]
            interpolation = params.model.preprocessing.interpolation
            return prepared(params.target, source, interpolation, context, checkpoint, FILES)

        wanted = Wanted(params.model, params.layers, params.target, params.train)
        return train_and_test(wanted, prepare, context, additions)

    def additions(self, params: FinetuneParams, context: Context) -> Additions | None:
        """What a job that is fine-tuning and more adds to the story."""
        return None


def _treatments(params: FinetuneParams) -> tuple[Treatment, ...]:
    return treatments(params.layers, len(numbered(params.model.name)))
