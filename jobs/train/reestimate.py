"""Statistics of frozen BatchNorms, computed anew on the training images.

Nothing but running means and variances changes.  They follow from the pretrained weights and the
training images alone, so an attempt that resumes computes them again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftd.job import Checkpoint
from jobs.data.batches import Loader
from jobs.data.keyed import Indices
from jobs.data.prepare import as_it_stands
from jobs.models.network import Network
from jobs.train.loop import Training
from jobs.train.policies import frozen_norms
from jobs.train.state import FILES, TrainingState


def reestimate_if_asked(
    training: Training, state: TrainingState, checkpoint: Checkpoint | None
) -> None:
    """As ``train.batchnorm.frozen`` says, before `state` takes anything from `checkpoint`.

    The run can be left meanwhile, as it stands there.
    """
    context, train = training.context, training.splits.train
    if training.params.batchnorm.frozen != "reestimate" or not frozen_norms(state.network):
        return
    step = 0 if checkpoint is None else checkpoint.step

    def pause() -> None:
        context.checkpoint(step, lambda: as_it_stands(checkpoint, FILES))

    reestimate(state.network, training.loader, train, training.params.batch_size, pause)
    context.note("batchnorm", frozen="reestimate", fit_set="train", num_images=len(train))


@torch.no_grad()
def reestimate(
    network: Network,
    loader: Loader,
    train: Indices,
    batch_size: int,
    pause: Callable[[], None],
) -> None:
    """Mean and variance of what each frozen BatchNorm sees when every image of `train` is shown.

    One pass, centre crops, even batches of at most `batch_size`; while it goes on, these layers
    normalise by the batch, as when the source was trained.  Variances are unbiased, over all
    images.  `pause` is called after each batch and may raise to leave.
    """
    norms = frozen_norms(network)
    sums = {norm: _Sums(norm) for norm in norms}
    before = {norm: {name: own.clone() for name, own in norm.named_buffers()} for norm in norms}
    network.eval()
    with ExitStack() as hooks:
        for norm in norms:
            norm.training = True
            handle = norm.register_forward_pre_hook(sums[norm].look)
            hooks.callback(handle.remove)
        num_batches = -(-len(train) // batch_size)
        for batch in loader.evaluation(train, -(-len(train) // num_batches)):
            network(batch.images)
            pause()
    for norm in norms:
        norm.training = False
        for name, own in norm.named_buffers():
            own.copy_(before[norm][name])
        sums[norm].store(norm)
    network.train()


class _Sums:
    """Sums over all values of each channel, in float64."""

    def __init__(self, norm: _BatchNorm) -> None:
        self._count = 0
        self._sum = torch.zeros(norm.num_features, dtype=torch.float64)
        self._squares = torch.zeros_like(self._sum)

    def look(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Add up what a BatchNorm is given: (N, C, ...)."""
        values = inputs[0].double().transpose(0, 1).flatten(1)
        self._count += values.shape[1]
        self._sum += values.sum(1).cpu()
        self._squares += values.square().sum(1).cpu()

    def store(self, norm: _BatchNorm) -> None:
        """Replace the running statistics of `norm`."""
        mean = self._sum / self._count
        spread = (self._squares - self._count * mean**2).clamp(min=0)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(spread / max(self._count - 1, 1))
