"""The job ``joint``: fine-tune a network on the target together with borrowed source images.

Ge, Yu: Borrowing treasures from the wealthy (CVPR 2017).  Everything that finetune does, with the
same parameters; but each step takes as many images of the source as of the target, chosen for them,
through one trunk to two heads.  The source's head is gone when the run ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ftd.errors import InputError
from ftd.job import Budget, Checkpoint, Context, Input
from jobs import budget as budgets
from jobs import targets
from jobs.finetune import Finetune, FinetuneParams
from jobs.params import descriptors
from jobs.params.joint import HardParams, SelectionParams
from jobs.params.target import TargetParams

if TYPE_CHECKING:
    from jobs.borrowing.borrowing import Borrowing
    from jobs.data.prepare import Data


class JointParams(FinetuneParams):
    """Which network, what happens to its layers, on which images, trained how, borrowing what."""

    source: TargetParams = Field(
        description="The images that can be borrowed, and their classes: the same keys as `target` "
        "of finetune, of which the training images are meant. Which these are is up to the seed "
        "stream source.",
    )
    more_sources: list[TargetParams] = Field(
        default=[],
        description="Further sources: all together are the pool, with the union of their classes "
        "(of the same name are the same class).",
    )
    selection: SelectionParams
    hard: HardParams | None = Field(
        default=None,
        description="{every_steps, rounds, ...}: after some steps, target images that the network "
        "gets wrong or is unsure of get more neighbours, or are drawn more often.",
    )
    source_weight: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="What the borrowed images count in the loss; the target's count the rest to 1.",
    )
    balance: Literal["off", "on"] = Field(
        default="off",
        description="on: where a class is more than twice among the target's images of a batch, "
        "those beyond are replaced by images of classes that are absent.",
    )
    batch_norm: Literal["mixed", "separate"] = Field(
        default="mixed",
        description="mixed: normalised over target and borrowed images together; separate: each "
        "half by itself, and only the target's enters the statistics that are kept.",
    )

    @property
    def sources(self) -> tuple[TargetParams, ...]:
        """All that can be borrowed from."""
        return (self.source, *self.more_sources)

    @property
    def borrows(self) -> bool:
        """Whether any image is borrowed."""
        return self.selection.by != "none"


class Joint(Finetune):
    """Fine-tuning of one network on one target and what it borrows."""

    Params = JointParams
    version = 1
    preload = ("jobs.borrowing.borrowing", *Finetune.preload)

    def resolve(self, params: FinetuneParams, base: Path) -> FinetuneParams:
        """As for finetune; the same for the pool's images."""
        found = _own(super().resolve(params, base))
        if not found.borrows:
            return found
        pool = []
        for name, source in zip(_names(found), found.sources, strict=True):
            with targets.told_of(name):
                pool.append(targets.resolve(source, base))
            _check_alike(found.target, pool[-1], name)
            if len(found.sources) > 1 and pool[-1].imbalance is not None:
                raise InputError(
                    "several sources are put together, which undoes an imbalance of one",
                    where=f"{name}.imbalance",
                    fix="Leave it out",
                )
        _check(found)
        selection = found.selection
        if selection.looks_for_neighbours:
            size = found.target.decode_size
            wanted = descriptors.resolved(selection.descriptors, found.model, size, base)
            selection = selection.model_copy(update={"descriptors": wanted})
        return found.model_copy(
            update={"source": pool[0], "more_sources": pool[1:], "selection": selection}
        )

    def with_budget(self, params: Mapping[str, Any], budget: Budget) -> Mapping[str, Any]:
        """As for finetune; of ``total_images``, those that are borrowed are half."""
        selection = params.get("selection", {})
        borrows = not isinstance(selection, Mapping) or selection.get("by") != "none"
        if budget.match == "total_images" and borrows:
            half = math.ceil(budget.value / 2)
            budget = budget.model_copy(update={"match": "target_images", "value": half})
        return super().with_budget(params, budget)

    def labels_used(self, params: FinetuneParams) -> str:
        """Those of the target, and of the pool what can be borrowed."""
        own = _own(params)
        used = [super().labels_used(params)]
        if own.borrows:
            used += [f"pool {budgets.training_labels(source)}" for source in own.sources]
        return " + ".join(used)

    def identity(self, params: FinetuneParams) -> Mapping[str, Any]:
        """As for finetune, and what of borrowing matters."""
        own = _own(params)
        found = {**super().identity(params), "selection": own.selection.identity()}
        if own.borrows:
            found["sources"] = [targets.identity(source) for source in own.sources]
            found["source_weight"] = own.source_weight
            if own.hard is not None:
                found["hard"] = own.hard.identity()
            if own.balance == "on":
                found["balance"] = own.balance
            if own.batch_norm == "separate":
                found["batch_norm"] = own.batch_norm
        return found

    def inputs(self, params: FinetuneParams) -> Mapping[str, Input]:
        """As for finetune, and the images of each source where any are borrowed."""
        own, found = _own(params), dict(super().inputs(params))
        if own.borrows:
            for number, source in enumerate(own.sources, start=1):
                for name, item in targets.inputs(source).items():
                    found[_source_input(name, number)] = item
        if own.selection.looks_for_neighbours:
            for name, item in descriptors.inputs(own.selection.descriptors).items():
                found[f"descriptors {name}"] = item
        return found

    def additions(self, params: FinetuneParams, context: Context) -> Borrowing | None:
        """What is borrowed, and how it is learned."""
        own = _own(params)
        if not own.borrows:
            return None
        from jobs.borrowing.borrowing import Borrowing
        from jobs.data.prepare import prepared
        from jobs.data.union import united
        from jobs.train.state import FILES

        read, interpolation = self.inputs(params), own.model.preprocessing.interpolation
        # the source's own draws, so that a target of the same dataset draws others
        drawn = dict.fromkeys(("split", "classes", "subset"), context.seeds["source"])
        seeds = {**context.seeds, **drawn}

        def parts(checkpoint: Checkpoint | None) -> Iterator[Data]:
            for number, source in enumerate(own.sources, start=1):
                name = _source_input("target", number)
                with targets.told_of(_names(own)[number - 1]):
                    yield prepared(
                        source, read[name], interpolation, context, checkpoint, FILES, seeds, name
                    )

        return Borrowing(own, lambda checkpoint: united([*parts(checkpoint)]))


def _own(params: FinetuneParams) -> JointParams:
    assert isinstance(params, JointParams)
    return params


def _source_input(name: str, number: int) -> str:
    """``source``, ``source 2``, ``source manifest``: an input of the n-th source."""
    name = "source" if name == "target" else f"source {name}"
    return name if number == 1 else f"{name} {number}"


def _names(params: JointParams) -> list[str]:
    """How people name the datasets of the pool."""
    return ["source", *(f"more_sources[{place}]" for place in range(len(params.more_sources)))]


def _check_alike(target: TargetParams, source: TargetParams, name: str) -> None:
    """Raise InputError where one network cannot see both; the source is the parameter `name`."""
    for size in ("decode_size", "crop_size"):
        theirs, ours = getattr(source, size), getattr(target, size)
        if theirs != ours:
            raise InputError(
                f"{name}.{size} is {theirs}, and target.{size} {ours}: one network sees both",
                where=name.partition("[")[0],
                fix=f"Give both the same {size}",
            )
    for images in (target, source):
        if images.multi_label:
            raise InputError(
                "borrowing is for one label per image, not for several",
                where="target" if images is target else name.partition("[")[0],
                fix="Leave multi_label out, or use selection.by: none",
            )


def _check(params: JointParams) -> None:
    """Raise InputError for parameters that contradict one another."""
    hard = params.hard
    if hard is not None and hard.neighbours == "on" and params.selection.by != "descriptors":
        raise InputError(
            f"selection.by: {params.selection.by} knows no neighbours, of which hard images would "
            "get more",
            where="hard.neighbours",
            fix="Use hard.neighbours: off with oversample: on, or selection.by: descriptors",
        )
    if hard is not None and params.train.steps is not None:
        hard.ends(1, params.train.steps)
    if hard is not None and hard.oversample == "on" and params.train.sampling == "balanced":
        raise InputError(
            "hard.oversample and train.sampling: balanced both say how often an image is drawn",
            where="hard.oversample",
            fix="Use one of them",
        )
    for name, is_wanted, why in (
        ("lr_find", params.train.lr_find is not None, "looks at the target's loss alone"),
        (
            "batchnorm.group_size",
            params.train.batchnorm.group_size is not None,
            "would part the target's images from the borrowed ones",
        ),
    ):
        if is_wanted:
            raise InputError(
                f"train.{name} {why}", where=f"train.{name}", fix="Leave it out, or borrow none"
            )
