"""A learning rate found by trying, before the first step; afterwards everything is as it was.

What was found is part of the training state, so that an attempt that resumes does not try again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jobs.params.lr_find import LrFindParams
from jobs.train.loop import Training
from jobs.train.state import TrainingState
from jobs.train.step import Stepper

DIVERGES = 4  # the search ends at a loss of so many times that of its first steps


def find_lr_if_asked(training: Training, state: TrainingState) -> None:
    """Put what ``train.lr_find`` finds into `state`, which has not taken a step.

    The rate around which the loss was least, by ``divisor`` (after fastai: Howard, Gugger 2020; a
    mean that lags behind, as there, would need a larger one); the lowest rate where no loss is
    finite.  The run can be left meanwhile, and begins the search
    again then.
    """
    wanted, context = training.params.lr_find, training.context
    if wanted is None:
        return
    losses = tried_losses(training, state, wanted)
    rates = tried_rates(wanted)[: len(losses)]
    width = window(wanted.steps)
    best = least(smoothed(losses, width))
    found = wanted.lowest if best is None else rates[best + width // 2] / wanted.divisor
    state.found_lr = found
    context.metric("train/lr", found, 0)
    context.note(
        "lr_find",
        lr=found,
        at_highest=best == wanted.steps - width,
        fit_set="train",
        rates=rates,
        losses=[loss if math.isfinite(loss) else None for loss in losses],
    )


def tried_rates(wanted: LrFindParams) -> list[float]:
    """The learning rates of the search: a geometric series from lowest to highest."""
    return [float(rate) for rate in np.geomspace(wanted.lowest, wanted.highest, wanted.steps)]


def window(steps: int) -> int:
    """How many steps are averaged over: a fifth of all, an odd number, at least three.

    A batch's loss is noisy, and a mean over the steps before would lag behind it and be noisiest at
    the start, where a small loss by accident would look like the least one.
    """
    return max(3, steps // 5 // 2 * 2 + 1)


def smoothed(losses: Sequence[float], width: int) -> list[float]:
    """The means of each `width` losses in a row."""
    return [
        math.fsum(losses[first : first + width]) / width for first in range(len(losses) - width + 1)
    ]


def least(losses: Sequence[float]) -> int | None:
    """The index of the least finite loss; of several, the first."""
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    return min(finite, key=lambda index: losses[index], default=None)


def tried_losses(training: Training, state: TrainingState, wanted: LrFindParams) -> list[float]:
    """The loss of each step of the search, until it diverges; `state` is left as it was.

    The steps are those of training, with its batches and draws, but all layers FT learn from the
    first one on.
    """
    params = training.params.model_copy(
        update={"unfreeze": None, "ema_decay": None, "early_stop": None}
    )
    context = training.context
    before = {name: tensor.clone() for name, tensor in state.weights().items()}
    trial = TrainingState.initial(state.network, params, context.device)
    # an epoch of one step: the state's sums are those of a single step
    stepper = Stepper(params, training.objective, wanted.steps, 1, context.device)
    batches = training.loader.training(
        training.splits.train, training.order, training.augmentation, range(wanted.steps)
    )
    losses: list[float] = []
    for rate, batch in zip(tried_rates(wanted), batches, strict=True):
        stepper.take_at(trial, batch, rate)
        losses.append(trial.sums[0].item() / len(batch.labels))
        first = losses[: window(wanted.steps)]
        if not losses[-1] <= DIVERGES * sum(first) / len(first):  # or not a number
            break
        context.progress(0, training.num_steps, finding_lr=f"{len(losses)}/{wanted.steps}")
        context.checkpoint(0, dict)
    state.load_weights(before)
    return losses
