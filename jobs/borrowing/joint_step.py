"""A step on the target's images and as many of the source's, through one trunk to two heads.

Ge, Yu: Borrowing treasures from the wealthy, CVPR 2017: L = (1 - w) CE_target + w CE_source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from jobs.borrowing.source_side import SourceSide
from jobs.data.batches import Batch
from jobs.growth.reading import Reading
from jobs.train.loss import Objective
from jobs.train.state import TrainingState
from jobs.train.step import Part, Stepper


@dataclass(frozen=True)
class Pairs(Batch):
    """A batch of the target's images, and what each of them borrows.

    ``source_classes`` (int64, ascending) are those of the pool's classes that are told apart.
    """

    borrowed: Batch = field(kw_only=True)
    source_classes: torch.Tensor = field(kw_only=True)


@dataclass(frozen=True)
class PartOfPairs(Part):
    """Pairs that are computed at once."""

    borrowed: Part = field(kw_only=True)
    source_classes: torch.Tensor = field(kw_only=True)


@dataclass(frozen=True, kw_only=True)
class JointStepper(Stepper):
    """Takes the steps of joint training; the source counts ``source_weight`` in the loss."""

    side: SourceSide
    reading: Reading
    source_weight: float

    def take_at(self, state: TrainingState, batch: Batch, factor: float) -> None:
        """Train `state` on `batch`, which has to be pairs."""
        if state.step % self.steps_per_epoch == 0:
            self.side.sums.zero_()
        super().take_at(state, batch, factor)

    def parts(self, batch: Batch) -> Sequence[Part]:
        """What of the pairs is computed at once."""
        assert isinstance(batch, Pairs)
        own, classes = super().parts(batch), batch.source_classes
        labels = torch.searchsorted(classes, batch.borrowed.labels)
        borrowed = replace(batch.borrowed, labels=labels)
        return [
            PartOfPairs(**vars(one), borrowed=other, source_classes=classes)
            for one, other in zip(
                own, Part.of(borrowed, self._source_objective(classes), len(own)), strict=True
            )
        ]

    def loss(self, state: TrainingState, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """What a part adds to the loss; the target's own loss and right answers (float64, 2)."""
        assert isinstance(part, PartOfPairs)
        num_own, borrowed, classes = len(part.images), part.borrowed, part.source_classes
        state.network.set_keys(state.step, torch.cat([part.keys, borrowed.keys]))
        with self.precision():
            logits = state.network(torch.cat([part.images, borrowed.images]))[:num_own]
            said = self.side.source_head(self.reading.latest()[num_own:])[:, classes]
        loss, counted = part.judged(self.objective, logits)
        source_loss, source_counted = borrowed.judged(self._source_objective(classes), said)
        self.side.sums += source_counted
        weight = self.source_weight
        return (1 - weight) * loss + weight * source_loss, counted

    def _source_objective(self, classes: torch.Tensor) -> Objective:
        return Objective(len(classes), label_smoothing=self.params.label_smoothing)
