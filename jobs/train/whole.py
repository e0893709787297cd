"""A whole run that trains a network: images, network, training, test.

What the jobs that train one have in common; they differ in where images and weights come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from ftd.job import Checkpoint, Completed, Context
from jobs.data.prepare import Data
from jobs.layers import numbered, treatments
from jobs.measure.conclude import conclude
from jobs.models.build import build
from jobs.models.kept import starting_weights
from jobs.models.network import Network
from jobs.params.model import ModelParams
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams
from jobs.train import numerics
from jobs.train.frozen_prefix import behind_frozen_layers
from jobs.train.loop import Training
from jobs.train.lr_find import find_lr_if_asked
from jobs.train.memory import keep_freed_memory
from jobs.train.policies import apply_policies
from jobs.train.reestimate import reestimate_if_asked
from jobs.train.state import TrainingState
from jobs.train.step import Penalty


@dataclass(frozen=True)
class Wanted:
    """A network, what happens to its `layers`, how it is trained; all resolved.

    The images are those of `target`, or of several of which it is the first.  The weights after
    the steps `keep_at` are kept too.  A `source` near chance is flagged.
    """

    model: ModelParams
    layers: str
    target: TargetParams
    train: TrainParams
    keep_at: tuple[int, ...] = ()
    source: bool = False


class Additions:
    """What a job may add to the story at its places; by itself, nothing."""

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Prepare more images; left meanwhile, the run stands as at `checkpoint`."""

    def training(
        self, training: Training, network: Network, checkpoint: Checkpoint | None
    ) -> Training:
        """The training to carry out, instead of the one just put together; left meanwhile, the run
        stands as at `checkpoint`."""
        return training

    def shows_images(self) -> bool:
        """Whether something else is done with the images that are trained on, or the network
        changes in the middle: then features of frozen layers do not do instead of them."""
        return False

    def beside(self) -> nn.Module | None:
        """What learns along with the network and is no part of it."""
        return None

    def built(self, network: Network, training: Training, step: int) -> Network:
        """The network to train, instead of the one just built; `step` steps are done already."""
        return network

    def restoring(self, state: TrainingState, training: Training, step: int) -> None:
        """Make `state` ready to take over a checkpoint at `step`."""

    def around_step(
        self, training: Training, state: TrainingState, take: Callable[[], None]
    ) -> None:
        """`take` a step, once."""
        take()

    def penalty(self, network: Network) -> Penalty | None:
        """What is added to the loss while `network` is trained."""
        return None

    def final_metrics(
        self, training: Training, state: TrainingState, pause: Callable[[], None]
    ) -> Mapping[str, float]:
        """Further metrics of the kept weights; `pause` is a place to leave."""
        return {}

    def flags(self, training: Training) -> tuple[str, ...]:
        """What else there is to know about the run before its metrics are believed."""
        return ()


def train_and_test(
    wanted: Wanted,
    prepare: Callable[[Checkpoint | None], Data],
    context: Context,
    additions: Additions | None = None,
) -> Completed:
    """Prepare the images, build the network, train it, test what is kept.

    `prepare` gives the images; it is told where the run stands, to be left there while it decodes.
    """
    adds = additions or Additions()
    model, train = wanted.model, wanted.train
    keep_freed_memory()
    numerics.check_precision(train.precision, context.device)
    numerics.configure(context.numerics, context.threads)
    context.fingerprint(numerics.fingerprint(context.numerics, context.device, train.precision))
    checkpoint = context.restore()
    data = prepare(checkpoint)
    adds.prepare(checkpoint)
    chosen = treatments(wanted.layers, len(numbered(model.name)))
    class_names = data.listing.class_names
    preprocessing = model.preprocessing
    network = build(
        model.name,
        class_names,
        chosen,
        starting_weights(model, class_names, chosen, preprocessing, context),
        init_seed=context.seeds["init"],
        dropout_seed=context.seeds["dropout"],
    )
    training = Training.on(data, wanted.target, train, preprocessing, context, wanted.keep_at)
    training.check()
    training = adds.training(training, network, checkpoint)
    num_done = 0 if checkpoint is None else checkpoint.step
    network = adds.built(network, training, num_done)
    apply_policies(network, train)
    state = TrainingState.initial(network, train, context.device, adds.beside())
    reestimate_if_asked(training, state, checkpoint)
    if not adds.shows_images():
        training = behind_frozen_layers(training, state, checkpoint)
    if checkpoint is not None and checkpoint.step > 0:
        adds.restoring(state, training, checkpoint.step)
        state.restore(checkpoint)
    else:
        find_lr_if_asked(training, state)
    training.run(state, adds.around_step, adds.penalty(state.network))
    completed = conclude(
        training,
        state,
        wanted.layers,
        data.metrics,
        source=wanted.source,
        further=adds.final_metrics,
    )
    return replace(completed, flags=(*completed.flags, *adds.flags(training)))
