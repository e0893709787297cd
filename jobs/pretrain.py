"""The job ``pretrain``: a source network, trained from scratch or from another source's weights.

What it is trained on are factors of transfer: how many classes, how many images of each, under fine
or coarse labels, of one dataset or several; so are the network's width and depth, and when training
stops.  Other runs start from what it keeps, ``weights: {run: EXPERIMENT}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from ftd.errors import InputError
from ftd.job import Budget, Checkpoint, Completed, Context, Input, Job, Params
from jobs import budget as budgets
from jobs import recipe, records, sources, targets
from jobs.layers import Treatment, numbered, spelled
from jobs.params.model import ModelParams
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams
from jobs.sources import Weights

if TYPE_CHECKING:
    from jobs.data.prepare import Data

Step = Annotated[int, Field(ge=1)]


class SourceModelParams(ModelParams):
    """The network, trained from scratch unless said otherwise."""

    weights: Weights = Field(
        default="none",
        description="Weights to start from, under a new classifier: none (from scratch), imagenet "
        "(the published ones), {file: ...} or {run: EXPERIMENT} (a route of several steps).",
    )


class PretrainParams(Params):
    """Which network, on which images, trained how."""

    model: SourceModelParams
    source: TargetParams = Field(
        description="The images and their classes: the same keys as `target` of finetune. Which "
        "classes and images are drawn is up to the seed stream source.",
    )
    more_sources: list[TargetParams] = Field(
        default=[],
        description="Further sources: the network learns the images of all, and the union of their "
        "classes (of the same name are the same class).",
    )
    train: TrainParams
    keep_at: list[Step] = Field(
        default=[],
        description="Steps after which the weights are kept too, for weights: {run: EXPERIMENT, "
        "checkpoint: STEP}.",
    )

    @field_validator("keep_at")
    @classmethod
    def _ascending(cls, steps: list[int]) -> list[int]:
        return sorted(set(steps))

    @property
    def sources(self) -> tuple[TargetParams, ...]:
        """All that the network is trained on."""
        return (self.source, *self.more_sources)


class Pretrain(Job[PretrainParams]):
    """A network for others to start from."""

    Params = PretrainParams
    version = 1
    preload = ("jobs.data.union", "jobs.train.whole", "torchvision.models")

    def resolve(self, params: PretrainParams, base: Path) -> PretrainParams:
        """Make paths absolute and defaults explicit; refuse what cannot work."""
        name = params.model.name
        with targets.told_of("source"):
            weights = sources.resolve(name, params.model.weights, base)
            first, *more = [targets.resolve(source, base) for source in params.sources]
            for other in more:
                _check_alike(first, other)
            records.check_size(name, first.crop_size or first.decode_size)
            train = recipe.resolve(params.train, first, numbered(name))
        if train.steps is not None:
            _check_reached(params.keep_at, train.steps)
        return params.model_copy(
            update={
                "model": params.model.model_copy(update={"weights": weights}),
                "source": first,
                "more_sources": more,
                "train": train,
            }
        )

    def with_budget(self, params: Mapping[str, Any], budget: Budget) -> Mapping[str, Any]:
        """Steps or epochs of training; for images, steps of whole batches."""
        if budget.match == "target_images":
            raise InputError(
                "a source is trained without images of a target",
                where="budget",
                fix="Use match: total_images, steps or epochs",
            )
        return budgets.with_budget(params, budget, PretrainParams)

    def labels_used(self, params: PretrainParams) -> str:
        """Training and validation images of every source, as far as the parameters say."""
        return " + ".join(budgets.labels_used(source) for source in params.sources)

    def identity(self, params: PretrainParams) -> Mapping[str, Any]:
        """Resolved parameters less what cannot matter: fields that this run does not use."""
        model, train = params.model, params.train
        names = numbered(model.name)
        found = {
            **model.identity,
            "sources": [targets.identity(source) for source in params.sources],
            "train": recipe.identity(train, params.source, _treatments(params), names),
        }
        return found | ({"keep_at": params.keep_at} if params.keep_at else {})

    def inputs(self, params: PretrainParams) -> Mapping[str, Input]:
        """The images and labels of each source, and what the weights start from."""
        found = sources.inputs(params.model.name, params.model.weights)
        for number, source in enumerate(params.sources, start=1):
            found |= {
                _numbered(name, number): item for name, item in targets.inputs(source).items()
            }
        return found

    def keeps(self, params: PretrainParams) -> tuple[str, ...]:
        """The final weights, those of the steps asked for, and the predictions."""
        return (sources.WEIGHTS, sources.PREDICTIONS, *map(sources.checkpoint_name, params.keep_at))

    def primary_metric(self, params: PretrainParams) -> str:
        """What matters most for this kind of images."""
        return f"test/{targets.default_metric(params.source)}"

    def run(self, params: PretrainParams, context: Context) -> Completed:
        """Prepare the images, build the network, train it, test what is kept."""
        from jobs.data.prepare import prepared
        from jobs.data.union import united
        from jobs.train.state import FILES
        from jobs.train.whole import Wanted, train_and_test

        interpolation = params.model.preprocessing.interpolation
        # the source's own draws, so that a target of the same dataset draws others
        own = dict.fromkeys(("split", "classes", "subset"), context.seeds["source"])
        seeds = {**context.seeds, **own}

        def parts(checkpoint: Checkpoint | None) -> Iterator[Data]:
            for number, source in enumerate(params.sources, start=1):
                read = self.inputs(params)[_numbered("target", number)]
                with targets.told_of("source"):
                    yield prepared(source, read, interpolation, context, checkpoint, FILES, seeds)

        wanted = Wanted(
            params.model,
            spelled(_treatments(params)),
            params.source,
            params.train,
            keep_at=tuple(params.keep_at),
            source=True,
        )
        return train_and_test(wanted, lambda checkpoint: united([*parts(checkpoint)]), context)


def _treatments(params: PretrainParams) -> tuple[Treatment, ...]:
    before = Treatment.R if params.model.weights == "none" else Treatment.FT
    return (before,) * (len(numbered(params.model.name)) - 1) + (Treatment.R,)


def _numbered(name: str, number: int) -> str:
    """``source``, ``source 2``, ``manifest 2``: an input of the n-th source."""
    name = "source" if name == "target" else name
    return name if number == 1 else f"{name} {number}"


def _check_alike(first: TargetParams, other: TargetParams) -> None:
    for name in ("decode_size", "crop_size", "multi_label"):
        one, two = getattr(first, name), getattr(other, name)
        if one != two:
            raise InputError(
                f"the sources differ in {name} ({one}, {two}), and one network sees them all",
                where="more_sources",
                fix=f"Give all the same {name}",
            )


def _check_reached(keep_at: list[int], num_steps: int) -> None:
    if keep_at and keep_at[-1] > num_steps:
        raise InputError(
            f"weights are to be kept after step {keep_at[-1]}, and training has {num_steps}",
            where="keep_at",
            fix="Keep those of earlier steps, or train longer",
        )
