"""A growth in the course of a run: when it happens, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ftd.errors import InputError
from ftd.job import Checkpoint
from jobs.growth.blocks import block_metrics
from jobs.growth.forgetting import Source
from jobs.growth.gradmax import aim
from jobs.growth.pace import Pace
from jobs.growth.place import classifier_path, place_in
from jobs.growth.rehearsing import Rehearsing
from jobs.growth.remembering import Remembering
from jobs.growth.source_classifier import SourceClassifier
from jobs.growth.surgery import grow, grow_state, num_growths
from jobs.models.network import Network
from jobs.params.growth import ForgettingParams, GrowthParams
from jobs.train.loop import Training
from jobs.train.state import TrainingState
from jobs.train.step import Penalty
from jobs.train.whole import Additions


class Growing(Additions):
    """What the job ``grow`` adds to fine-tuning.

    The network grows before the first step, or right behind step ``at_step``, before that step can
    be left: a checkpoint of that step or a later one is always of the grown network.
    """

    def __init__(
        self,
        wanted: GrowthParams,
        init_seed: int,
        source: Callable[[Checkpoint | None], Source] | None = None,
        forgetting: ForgettingParams | None = None,
    ) -> None:
        """`source` gives what forgetting is measured on, where that is wanted."""
        self._wanted = wanted
        self._init_seed = init_seed
        self._num_before = 0
        self._prepare_source = source
        self._source: Source | None = None
        self._lwf = forgetting.lwf if forgetting is not None else None
        self._rehearse = forgetting.rehearse if forgetting is not None else None
        self._remembering: Remembering | None = None
        self._rehearsing: Rehearsing | None = None

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """The source's images."""
        if self._prepare_source is not None:
            self._source = self._prepare_source(checkpoint)

    def shows_images(self) -> bool:
        """So it is where the source, too, is asked about them, or growth comes in the middle."""
        grows_later = self._wanted.at_step is not None and self._wanted.type != "none"
        return grows_later or self._lwf is not None or self._rehearse is not None

    def built(self, network: Network, training: Training, step: int) -> Network:
        """The network, grown if that comes before training."""
        at_step = self._wanted.at_step
        if at_step is not None and at_step >= training.num_steps:
            raise InputError(
                f"the network is to grow after step {at_step}, and training has "
                f"{training.num_steps}",
                where="growth.at_step",
                fix="Grow earlier, or train longer",
            )
        if self._source is not None:
            self._source = self._source.apart_from(training)
        self._listen(network, training)
        self._num_before = num_parameters_of(network)
        if at_step is not None or self._wanted.type == "none":
            return network
        network.to(training.context.device)
        size = training.loader.crop_size
        grown = grow(network, self._wanted, size=size, init_seed=self._init_seed)
        if step == 0:
            self._aim(grown, training, 0)
        return grown

    def _listen(self, network: Network, training: Training) -> None:
        """What is done against forgetting reads what the source's classifier would."""
        if self._source is None or (self._lwf is None and self._rehearse is None):
            return
        classifier = SourceClassifier(self._source.network())
        classifier.listen(network)
        if self._lwf is not None:
            self._remembering = Remembering(classifier, self._lwf)
        if self._rehearse is not None:
            self._rehearsing = Rehearsing(self._source, classifier, self._rehearse, training)

    def restoring(self, state: TrainingState, training: Training, step: int) -> None:
        """Grow the network that a checkpoint behind the growth is of; it brings the weights."""
        at_step = self._wanted.at_step
        if at_step is not None and step >= at_step:
            self._grow_state(state, training)

    def around_step(
        self, training: Training, state: TrainingState, take: Callable[[], None]
    ) -> None:
        """Measure the pace of some steps; grow behind the wanted one.

        Training never stops early before that: patience begins with the grown network.
        """
        pace = Pace(state.network) if self._paces(state.step + 1) else None
        if self._rehearsing is not None:
            self._rehearsing.draw(state, training.num_steps)
        take()
        if pace is not None:
            for group, value in pace.since().items():
                training.context.metric(f"pace/{group}", value, state.step)
        at_step = self._wanted.at_step
        if at_step is None or self._wanted.type == "none" or state.step > at_step:
            return
        if state.patience is not None:
            state.patience.forget()
        if state.step == at_step:
            self._grow_state(state, training)
            self._aim(state.network, training, state.step)

    def penalty(self, network: Network) -> Penalty | None:
        """What the network forgets, where that is to be little."""
        terms = [term for term in (self._remembering, self._rehearsing) if term is not None]
        if not terms:
            return None
        return lambda images: torch.stack([term(images) for term in terms]).sum()

    def final_metrics(
        self, training: Training, state: TrainingState, pause: Callable[[], None]
    ) -> Mapping[str, float]:
        """Numbers of parameters, of the network and of what it has grown; what its blocks know,
        and what it still knows of its source."""
        count = num_parameters_of(state.network)
        known = block_metrics(training, state, pause) if self._wanted.blocks == "on" else {}
        if self._source is not None:
            adapted = None if state.diverged else state.network
            known = {**known, **self._source.metrics(adapted, pause)}
        return {
            **known,
            "model/num_parameters": float(count),
            "model/num_grown": float(count - self._num_before),
        }

    def _paces(self, step: int) -> bool:
        """Whether the pace of `step` (from 1) is measured: the 1st, 2nd, 4th, 8th, ..., counted
        from the growth on; the last one, of a learning rate that has fallen to 0, says nothing."""
        since = step - (self._wanted.at_step or 0)
        count = since if since > 0 else step
        return count & (count - 1) == 0

    def _grow_state(self, state: TrainingState, training: Training) -> None:
        size = training.loader.crop_size
        grow_state(state, self._wanted, training.params, size=size, init_seed=self._init_seed)

    def _aim(self, network: Network, training: Training, step: int) -> None:
        """GradMax, on the batch that the next step is taken on."""
        if self._wanted.type != "gradmax":
            return
        steps = range(step, step + 1)
        train, order = training.splits.train, training.order
        batch = next(training.loader.training(train, order, training.augmentation, steps))
        place = place_in(network.module, network.layers, network.model, classifier_path(network))
        number = num_growths(network.module)
        aim(network, place, number, batch, training.objective, self._init_seed)


def num_parameters_of(network: Network) -> int:
    """How many numbers the network can learn, in all layers, frozen ones included."""
    return sum(parameter.numel() for parameter in network.module.parameters())
