"""The job ``grow``: fine-tune a network that gets new units or layers for its new task.

Everything that finetune does, with the same parameters; and a growth, before training or in its
middle.  Old layers are treated as the layers' text says, new parts always learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ftd.errors import InputError
from ftd.job import Checkpoint, Context, Input
from jobs import records, targets
from jobs.finetune import Finetune, FinetuneParams
from jobs.layers import Treatment, numbered, treatments
from jobs.params.growth import NEW_TOP, ForgettingParams, GrowthParams
from jobs.sources import WeightsRun
from jobs.timm_names import is_timm

if TYPE_CHECKING:
    from jobs.growth.forgetting import Source
    from jobs.growth.growing import Growing


class GrowParams(FinetuneParams):
    """Which network, what happens to its old layers, on which images, trained and grown how."""

    growth: GrowthParams
    forgetting: ForgettingParams | None = Field(
        default=None,
        description="{source}: how much worse the network has become on what it knew before.",
    )


class Grow(Finetune):
    """Fine-tuning of one network that grows, on one target."""

    Params = GrowParams
    version = 1
    preload = ("jobs.growth.growing", *Finetune.preload)

    def resolve(self, params: FinetuneParams, base: Path) -> FinetuneParams:
        """As for finetune; refuse a growth that cannot work with these layers."""
        found = super().resolve(params, base)
        growth, train = _own(found).growth, found.train
        if not is_timm(found.model.name):  # those say it when the network is there
            growth.check_top(found.model.name, num_fully_connected(found.model.name))
        last = treatments(found.layers, len(numbered(found.model.name)))[-1]
        if growth.type != "none" and last == Treatment.F:
            raise InputError(
                f"layers '{found.layers}' freeze the classifier, which has to learn to read what "
                "is grown",
                where="layers",
                fix="End with R(last) or FT(last)",
            )
        if growth.type in NEW_TOP and last != Treatment.R:
            raise InputError(
                f"growth.type: {growth.type} gives the classifier other units to read, so its old "
                "weights mean nothing",
                where="layers",
                fix="End with R(last)",
            )
        if growth.at_step is not None:
            if train.l2_sp is not None:
                raise InputError(
                    "train.l2_sp pulls to the weights before training, which parts that come later "
                    "do not have",
                    where="train.l2_sp",
                    fix="Leave l2_sp or growth.at_step out",
                )
            if train.steps is not None and growth.at_step >= train.steps:
                raise InputError(
                    f"the network is to grow after step {growth.at_step}, and training has "
                    f"{train.steps}",
                    where="growth.at_step",
                    fix="Grow earlier, or train longer",
                )
        return _with_source(_own(found), base)

    def identity(self, params: FinetuneParams) -> Mapping[str, Any]:
        """As for finetune, and what of growth and forgetting matters."""
        own = _own(params)
        found = {**super().identity(params), "growth": own.growth.identity()}
        if own.forgetting is not None:
            found["source"] = targets.identity(own.forgetting.source)
            against = own.forgetting.model_dump(mode="json", include={"lwf", "rehearse"})
            found |= {name: value for name, value in against.items() if value is not None}
        return found

    def inputs(self, params: FinetuneParams) -> Mapping[str, Input]:
        """As for finetune, and the source's images where forgetting is measured."""
        found, own = super().inputs(params), _own(params)
        if own.forgetting is None:
            return found
        source = targets.inputs(own.forgetting.source)
        return {**found, **{_SOURCE.get(name, f"source {name}"): i for name, i in source.items()}}

    def additions(self, params: FinetuneParams, context: Context) -> Growing:
        """The growth, and what is measured of it."""
        from jobs.data.prepare import prepared
        from jobs.growth.forgetting import Source
        from jobs.growth.growing import Growing
        from jobs.train.state import FILES

        own = _own(params)
        growth, init_seed = own.growth, context.seeds["init"]
        if own.forgetting is None:
            return Growing(growth, init_seed)
        model, wanted, read = own.model, own.forgetting.source, self.inputs(params)["source"]

        def source(checkpoint: Checkpoint | None) -> Source:
            interpolation = model.preprocessing.interpolation
            with targets.told_of("forgetting.source"):
                data = prepared(
                    wanted, read, interpolation, context, checkpoint, FILES, known_as="source"
                )
            return Source.of(model, wanted, data, context)

        return Growing(growth, init_seed, source, own.forgetting)


_SOURCE = {"target": "source"}


def num_fully_connected(model: str) -> int:
    """How many layers before the classifier of `model` are called so; at least as many as are."""
    before = numbered(model)[:-1]
    return len(list(takewhile(lambda name: name.startswith("fc"), reversed(before))))


def _own(params: FinetuneParams) -> GrowParams:
    assert isinstance(params, GrowParams)
    return params


def _with_source(params: GrowParams, base: Path) -> GrowParams:
    """`params` with the source's images resolved, where forgetting is measured."""
    if params.forgetting is None:
        return params
    if not isinstance(params.model.weights, WeightsRun):
        raise InputError(
            "forgetting is measured with the classifier and the test images of the source's run",
            where="forgetting",
            fix="Start from a run: model.weights: {run: EXPERIMENT}, or leave forgetting out",
        )
    with targets.told_of("forgetting.source"):
        source = targets.resolve(params.forgetting.source, base)
        records.check_size(params.model.name, source.crop_size or source.decode_size)
    return params.model_copy(
        update={"forgetting": params.forgetting.model_copy(update={"source": source})}
    )
