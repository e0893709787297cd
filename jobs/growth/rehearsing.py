"""Joint training against forgetting: images of the source are learned along with the target's.

What learning without forgetting is held against by Li, Hoiem (ECCV 2016), and growing by Wang,
Ramanan, Hebert (CVPR 2017, table 4).  The images of either pass by themselves, so that BatchNorm
never mixes them; the source's are told apart by the source's classifier, which stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ftd.errors import DataError
from jobs.data.batches import Batch
from jobs.data.order import Order
from jobs.growth.forgetting import Source
from jobs.growth.source_classifier import SourceClassifier
from jobs.params.growth import RehearseParams
from jobs.train.loop import Training
from jobs.train.loss import Objective
from jobs.train.state import TrainingState


class Rehearsing:
    """A penalty: the loss of images of the source, as many for each of the target's, one run's."""

    def __init__(
        self,
        source: Source,
        classifier: SourceClassifier,
        wanted: RehearseParams,
        training: Training,
    ) -> None:
        self._source, self._classifier, self._wanted = source, classifier, wanted
        scoring, images = source.scoring, source.loader.images
        self._objective = Objective(scoring.num_classes, scoring.multi_label)
        digests = images.digests[source.trained_on]
        if not len(digests):
            raise DataError(
                "there is no image of the source to rehearse that its run was not tested on",
                where="forgetting.source",
                fix="Ask for more of its images, or leave rehearse out",
            )
        self._order = Order(digests, training.params.batch_size, training.order.seed)
        self._augmentation = replace(
            training.augmentation, decode_size=images.size, crop_size=source.loader.crop_size
        )
        self._batches: Iterator[Batch] | None = None
        self._state: TrainingState | None = None
        self._batch: Batch | None = None
        self._num_taken = 0

    def draw(self, state: TrainingState, num_steps: int) -> None:
        """Who is rehearsed in the next step of `state`, of `num_steps`; called before each."""
        if self._batches is None:
            steps = range(state.step, num_steps)
            self._batches = self._source.loader.training(
                self._source.trained_on, self._order, self._augmentation, steps
            )
        self._state, self._batch, self._num_taken = state, next(self._batches), 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """weight times the losses, added up, of the next as many images of the source's batch.

        Where that has fewer left, of those.
        """
        state, batch = self._state, self._batch
        assert state is not None and batch is not None, "drawn before the step"
        part = slice(self._num_taken, self._num_taken + len(images))
        self._num_taken = part.stop
        if not len(batch.images[part]):
            return images.new_zeros(())
        state.network.set_keys(state.step, batch.keys[part])
        state.network(batch.images[part])
        targets = self._objective.targets(batch)[part]
        return self._wanted.weight * self._objective.sum(self._classifier.now(), targets)
