"""Borrowing in the course of a run: the pool, what is selected of it, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ftd.errors import DataError
from ftd.job import Checkpoint
from jobs.borrowing.balance import BalancedBatches
from jobs.borrowing.hard import LevelOrder
from jobs.borrowing.joint_training import JointTraining
from jobs.borrowing.kept import keep
from jobs.borrowing.rounds import Rounds
from jobs.borrowing.selection import Selection
from jobs.borrowing.source_side import SourceSide, width_read
from jobs.data.batches import Loader
from jobs.data.keyed import Indices
from jobs.data.order import Order
from jobs.data.prepare import Data, as_it_stands
from jobs.descriptors.leakage import Leaked, leaked
from jobs.growth.reading import Reading
from jobs.measure.scoring import named
from jobs.models.network import Network
from jobs.train.loop import Training
from jobs.train.state import FILES, TrainingState
from jobs.train.whole import Additions

if TYPE_CHECKING:
    from jobs.joint import JointParams

NUM_EXAMPLES = 5  # of images that are left out, told by their ids


class Borrowing(Additions):
    """What the job ``joint`` adds to fine-tuning."""

    def __init__(self, wanted: JointParams, pool: Callable[[Checkpoint | None], Data]) -> None:
        """`pool` prepares the images that can be borrowed."""
        self._wanted = wanted
        self._prepare_pool = pool
        self._pool: Data | None = None
        self._leaked: Leaked | None = None
        self._side: SourceSide | None = None

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """The pool's images."""
        self._pool = self._prepare_pool(checkpoint)

    def training(
        self, training: Training, network: Network, checkpoint: Checkpoint | None
    ) -> Training:
        """Training of the target's images and of what they borrow."""
        assert self._pool is not None
        wanted, context, own = self._wanted, training.context, training.loader
        step = 0 if checkpoint is None else checkpoint.step

        def pause() -> None:
            context.checkpoint(step, lambda: as_it_stands(checkpoint, FILES))

        images, train = self._pool.images, training.splits.train
        selection = Selection.of(
            wanted.selection, wanted.hard, own.images, train, images, self._rows(training), context,
            pause,
        )  # fmt: skip
        network.to(context.device)
        width, num_levels = width_read(network, own.crop_size), len(train) if wanted.hard else 0
        names, seed = images.listing.class_names, context.seeds["init"]
        self._side = side = SourceSide(width, names, seed, num_levels)
        rounds = None
        if wanted.hard is not None:
            ends = wanted.hard.ends(training.order.steps_per_epoch, training.num_steps)
            rounds = Rounds(wanted.hard, ends, side, context.seeds["source"])
        training = replace(training, order=self._order(training, rounds))
        return JointTraining(
            **vars(training),
            source=Loader(images, own.crop_size, own.preprocessing, context.device),
            source_augmentation=training.augmentation,
            selection=selection,
            side=side,
            reading=Reading(network),
            source_weight=wanted.source_weight,
            separate=wanted.batch_norm == "separate",
            rounds=rounds,
        )

    def _rows(self, training: Training) -> Indices:
        """The rows of the pool that may be borrowed."""
        assert self._pool is not None
        rows, splits = self._pool.splits.train, training.splits
        target, pool = training.loader.images, self._pool.images
        self._leaked = found = leaked(target, splits.test, splits.val, pool, rows)
        ids = [pool.listing.ids[row] for row in found.rows[:NUM_EXAMPLES].tolist()]
        training.context.note(
            "held out in the pool",
            identical=len(found.identical),
            near=len(found.near),
            of_test=found.num_of_test,
            of_val=found.num_of_val,
            examples=ids,
        )
        if self._wanted.selection.held_out == "report":
            return rows
        left = np.setdiff1d(rows, found.rows)
        if not len(left):
            raise DataError(
                "every image of the pool is one that the target is validated or tested on, or "
                "looks nearly like one",
                where="source",
                fix="Borrow from another dataset, or use selection.held_out: report",
            )
        return left

    def _order(self, training: Training, rounds: Rounds | None) -> Order:
        """The order of the target's images, by level and balanced if so wanted."""
        order, loader = training.order, training.loader
        plain = order.digests, order.batch_size, order.seed
        if rounds is not None and rounds.wanted.oversample == "on":
            per_epoch = order.steps_per_epoch
            order = LevelOrder(
                *plain, standing=lambda: (rounds.levels, rounds.last_end // per_epoch)
            )
        if self._wanted.balance == "on":
            labels = loader.images.listing.labels[training.splits.train]
            order = BalancedBatches(*plain, plain=order, labels=labels)
        return order

    def shows_images(self) -> bool:
        """The borrowed ones, to the same network."""
        return True

    def beside(self) -> nn.Module | None:
        """The source's side."""
        return self._side

    def final_metrics(
        self, training: Training, state: TrainingState, pause: Callable[[], None]
    ) -> Mapping[str, float]:
        """How much could be borrowed; who borrowed what is kept."""
        assert isinstance(training, JointTraining)
        assert self._pool is not None and self._leaked is not None
        keep(training)
        found = {
            "num_pool": len(self._pool.splits.train),
            "num_identical_to_held_out": len(self._leaked.identical),
            "num_near_held_out": len(self._leaked.near),
            "num_selected": len(training.lending().rows),
        }
        if training.rounds is not None:
            found["mean_level"] = training.levels.mean()
        return named("borrow", {name: float(value) for name, value in found.items()})

    def flags(self, training: Training) -> tuple[str, ...]:
        """``saw_held_out`` when images were lent that the target is validated or tested on."""
        assert isinstance(training, JointTraining) and self._leaked is not None
        lent = np.intersect1d(training.lending().rows, self._leaked.rows)
        return ("saw_held_out",) if len(lent) else ()
