"""Joint training: each step takes the target's images and as many borrowed ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from jobs.borrowing.hard import Levels
from jobs.borrowing.joint_step import JointStepper, Pairs
from jobs.borrowing.lending import Borrowed, Lending
from jobs.borrowing.norms import separate
from jobs.borrowing.rounds import Rounds
from jobs.borrowing.selection import Selection
from jobs.borrowing.source_side import SourceSide
from jobs.data.augment import Augmentation
from jobs.data.batches import Batch, Loader
from jobs.data.keyed import Indices
from jobs.growth.reading import Reading
from jobs.measure.scoring import named
from jobs.train.loop import Around, Training
from jobs.train.state import TrainingState
from jobs.train.step import Penalty, Stepper


@dataclass(frozen=True, kw_only=True)
class JointTraining(Training):
    """Training of the target's images together with the pool's, which ``source`` loads.

    ``source_augmentation`` is what may happen to them, ``source_weight`` what they count in the
    loss, ``rounds`` (None: none) make images hard; BatchNorm may be ``separate``.
    """

    source: Loader
    source_augmentation: Augmentation
    selection: Selection
    side: SourceSide
    reading: Reading
    source_weight: float
    separate: bool
    rounds: Rounds | None = None

    def run(
        self, state: TrainingState, around: Around | None = None, penalty: Penalty | None = None
    ) -> None:
        """As :meth:`Training.run`, on pairs of images."""
        if self.separate:
            separate(state.network)
        with self.reading.listening():
            super().run(state, around, penalty)

    def batches(self, start: int) -> Iterator[Batch]:
        """The pairs of all steps from `start` on; those behind a round are gathered after it."""
        digests = self.loader.images.digests[self.splits.train]
        everyone = np.arange(len(self.source.images.listing))
        ends = () if self.rounds is None else self.rounds.ends
        for first, last in pairwise((start, *(end for end in ends if end > start), self.num_steps)):
            steps = range(first, last)
            lending = self.lending()
            drawn = Borrowed(self.order, digests, lending)
            classes = torch.from_numpy(self._classes(lending)).to(self.context.device)
            own = self.loader.training(self.splits.train, self.order, self.augmentation, steps)
            others = self.source.training(everyone, drawn, self.source_augmentation, steps)
            for one, other in zip(own, others, strict=True):
                yield Pairs(**vars(one), borrowed=other, source_classes=classes)

    @property
    def levels(self) -> Levels:
        """Of the target's training images (N), 1 for all that are not hard."""
        if self.rounds is None:
            return np.ones(len(self.splits.train), np.int64)
        return self.rounds.levels

    def lending(self) -> Lending:
        """What can be borrowed now."""
        grows = self.rounds is not None and self.rounds.wanted.neighbours == "on"
        return self.selection.lending(self.levels if grows else np.ones_like(self.levels))

    def before_step(self, state: TrainingState) -> None:
        """A round, if it is due: then later batches are other ones."""
        rounds, context = self.rounds, self.context
        if rounds is None or not rounds.is_due(state.step):
            return

        def pause() -> None:
            context.checkpoint(state.step, state.writers)

        judged = rounds.take(
            state.network, self.reading, self.loader, self.splits.train, context.device, pause
        )
        found = {
            "num_wrong": float(judged.wrong.sum()),
            "num_uncertain": float(judged.uncertain.sum()),
            "num_selected": float(len(self.lending().rows)),
            "mean_level": float(rounds.levels.mean()),
        }
        for name, value in named("borrow", found).items():
            context.metric(name, value, state.step)

    def stepper(self, penalty: Penalty | None) -> Stepper:
        """What takes the steps."""
        return JointStepper(
            **vars(super().stepper(penalty)),
            side=self.side,
            reading=self.reading,
            source_weight=self.source_weight,
        )

    def measured(self, state: TrainingState) -> dict[str, float]:
        """As :meth:`Training.measured`, and the same of the borrowed images."""
        loss, right = (self.side.sums / self.num_seen(state)).tolist()
        return super().measured(state) | {"source_loss": loss, "source_top1": right}

    def final_metrics(self, state: TrainingState) -> dict[str, float]:
        """As :meth:`Training.final_metrics`, and the same of the borrowed images."""
        found = super().final_metrics(state)
        if state.diverged:
            num_classes = len(self._classes(self.lending()))
            chance = {"source_loss": math.log(num_classes), "source_top1": 1 / num_classes}
            found |= named("train", chance)
        return found

    def _classes(self, lending: Lending) -> Indices:
        """The classes that the source's head tells apart: all, or those that are not rare."""
        listing = self.source.images.listing
        if not self.selection.wanted.least_per_class:
            return np.arange(len(listing.class_names))
        return np.unique(listing.labels[lending.rows])
