"""Learning-rate schedules: a factor between 0 and 1 as a pure function of the step."""

from __future__ import annotations

import math

from jobs.params.train import TrainParams


def lr_factor(train: TrainParams, step: int, num_steps: int, steps_per_epoch: int) -> float:
    """What the peak learning rate is multiplied with at `step` (0-based) of `num_steps`.

    During the warm-up (w steps) it is (step + 1) / w.  Afterwards, with t the steps since and T
    those from there to the end: constant 1; cosine (1 + cos(pi t / T)) / 2 (Loshchilov, Hutter:
    SGDR, ICLR 2017, without restarts); step gamma^floor(step / step_size), counted from step 0.
    """
    warmup = _in_steps(train.warmup_steps, train.warmup_epochs, steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    match train.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup))) / 2
        case "step":
            size = _in_steps(train.step_size_steps, train.step_size_epochs, steps_per_epoch)
            return train.gamma ** (step // max(size, 1))


def _in_steps(steps: int | None, epochs: float | None, steps_per_epoch: int) -> int:
    return round((epochs or 0) * steps_per_epoch) if steps is None else steps
