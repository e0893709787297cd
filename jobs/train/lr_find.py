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

BETA = 0.98  # how much of the smoothed loss stays from step to step
DIVERGES = 4  # the search ends at a smoothed loss of so many times the least one


def find_lr_if_asked(training: Training, state: TrainingState) -> None:
    """Put what ``train.lr_find`` finds into `state`, which has not taken a step.

    The rate at which the smoothed loss was least, by ``divisor`` (as in fastai: Howard, Gugger
    2020); the lowest rate where no loss is finite.  The run can be left meanwhile, and begins the
    search again then.
    """
    wanted, context = training.params.lr_find, training.context
    if wanted is None:
        return
    losses = tried_losses(training, state, wanted)
    rates = tried_rates(wanted)[: len(losses)]
    best = least(smoothed(losses))
    found = wanted.lowest if best is None else rates[best] / wanted.divisor
    state.found_lr = found
    context.metric("train/lr", found, 0)
    context.note(
        "lr_find",
        lr=found,
        at_highest=best == wanted.steps - 1,
        fit_set="train",
        rates=rates,
        losses=[loss if math.isfinite(loss) else None for loss in losses],
    )


def tried_rates(wanted: LrFindParams) -> list[float]:
    """The learning rates of the search: a geometric series from lowest to highest."""
    return [float(rate) for rate in np.geomspace(wanted.lowest, wanted.highest, wanted.steps)]


def smoothed(losses: Sequence[float]) -> list[float]:
    """The mean of the losses so far, each weighing 0.98 times as much as the next one."""
    found, average = [], 0.0
    for count, loss in enumerate(losses, start=1):
        average = BETA * average + (1 - BETA) * loss
        found.append(average / (1 - BETA**count))
    return found


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
        smooth = smoothed(losses)
        if not math.isfinite(losses[-1]) or smooth[-1] > DIVERGES * min(smooth):
            break
        context.progress(0, training.num_steps, finding_lr=f"{len(losses)}/{wanted.steps}")
        context.checkpoint(0, dict)
    state.load_weights(before)
    return losses
