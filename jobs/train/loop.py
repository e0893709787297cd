"""The training loop: steps, validation at the ends of epochs, a place to leave after each.

A step is a pure function of (parameters, state, step index), so a run that was left and resumed
equals one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ftd.job import Context
from jobs.data.augment import Augmentation
from jobs.data.batches import Batch, Loader
from jobs.data.order import Order
from jobs.data.prepare import Data
from jobs.data.splits import Splits
from jobs.measure.evaluate import evaluate
from jobs.measure.metrics import chance, measures, named
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams
from jobs.sources import Preprocessing
from jobs.train.optimizer import set_lr
from jobs.train.schedule import lr_factor
from jobs.train.state import TrainingState

CHECK_EVERY = 25  # steps between two looks at the loss, which make a GPU wait


@dataclass(frozen=True)
class Training:
    """What stays the same during a run."""

    params: TrainParams
    loader: Loader
    splits: Splits
    order: Order
    augmentation: Augmentation
    context: Context

    @classmethod
    def on(
        cls,
        data: Data,
        target: TargetParams,
        params: TrainParams,
        preprocessing: Preprocessing,
        context: Context,
    ) -> Training:
        """Training on the images of the resolved `target`."""
        crop_size = target.crop_size or target.decode_size
        digests = data.images.digests[data.splits.train]
        return cls(
            params=params,
            loader=Loader(data.images, crop_size, preprocessing, context.device),
            splits=data.splits,
            order=Order(digests, params.batch_size, context.seeds["order"]),
            augmentation=Augmentation(
                target.decode_size,
                crop_size,
                params.flip,
                params.crop == "random",
                context.seeds["augment"],
            ),
            context=context,
        )

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        epochs, per_epoch = self.params.epochs, self.order.steps_per_epoch
        return self.params.steps or (epochs or 0) * per_epoch

    def validates_at(self, step: int) -> bool:
        """Whether the network is validated when `step` steps are done."""
        every = self.params.validate_every_epochs * self.order.steps_per_epoch
        return step == self.num_steps or (step > 0 and step % every == 0)

    def run(self, state: TrainingState) -> None:
        """Train from where `state` stands to the end, or until the loss is no longer finite."""
        batches = self._batches(state.step)
        clock = _Clock()
        while not state.diverged:
            if self.validates_at(state.step) and state.validated_step < state.step:
                clock.report(self.context, state.step)
                self._validate(state)
                clock = _Clock()
                continue
            if state.step == self.num_steps:
                break
            batch = next(batches)
            self._step(state, batch)
            clock.num_images += len(batch.labels)
            self._look(state, clock)
            self.context.checkpoint(state.step, state.writers)

    def _batches(self, start: int) -> Iterator[Batch]:
        steps = range(start, self.num_steps)
        return self.loader.training(self.splits.train, self.order, self.augmentation, steps)

    def _step(self, state: TrainingState, batch: Batch) -> None:
        """One optimizer step."""
        per_epoch = self.order.steps_per_epoch
        set_lr(state.optimizer, lr_factor(self.params, state.step, self.num_steps, per_epoch))
        state.network.set_keys(state.step, batch.keys)
        if not state.network.module.training:  # after a validation
            state.network.train()
        logits = state.network(batch.images)
        loss = functional.cross_entropy(logits, batch.labels)
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        if state.step % per_epoch == 0:
            state.sums.zero_()
        right = (logits.detach().argmax(dim=1) == batch.labels).sum()
        state.sums += torch.stack([loss.detach().double() * len(batch.labels), right.double()])
        state.step += 1

    def _look(self, state: TrainingState, clock: _Clock) -> None:
        """Notice a loss that is no longer finite, at steps that are fixed in advance."""
        epoch_ends = state.step % self.order.steps_per_epoch == 0
        if epoch_ends or state.step % CHECK_EVERY == 0 or state.step == self.num_steps:
            clock.loss = self.measured(state)["loss"]
            state.diverged = not math.isfinite(clock.loss)
        self.context.progress(
            state.step, self.num_steps, **({} if state.diverged else clock.shown(self, state.step))
        )

    def measured(self, state: TrainingState) -> dict[str, float]:
        """Mean loss and top-1 over the images of the current epoch, as they were trained on."""
        part = (state.step - 1) % self.order.steps_per_epoch + 1
        num_seen = len(self.splits.train) * part // self.order.steps_per_epoch
        loss, right = (state.sums / num_seen).tolist()
        return {"loss": loss, "top1": right}

    def _validate(self, state: TrainingState) -> None:
        """Record the epoch's metrics and remember the best weights."""

        def pause() -> None:
            self.context.checkpoint(state.step, state.writers)

        found = named("train", self.measured(state))
        if len(self.splits.val):
            logits = evaluate(
                state.network, self.loader, self.splits.val, self.context.device, pause
            )
            if not np.isfinite(logits).all():
                state.diverged = True
                return
            labels = self.loader.images.listing.labels[self.splits.val]
            found |= named("val", measures(logits, labels))
        for name, value in found.items():
            self.context.metric(name, value, state.step)
        if self.params.keep == "best":
            self._remember(state, found[self.params.select or "val/top1"])
        state.validated_step = state.step
        pause()

    def _remember(self, state: TrainingState, value: float) -> None:
        """Keep a copy of the weights when `value` beats all before (the earliest of equals)."""
        smaller_is_better = self.params.select == "val/nll"
        better = value < state.best_value if smaller_is_better else value > state.best_value
        if state.best_step == 0 or better:
            state.best_step, state.best_value = state.step, value
            state.best = {name: tensor.clone() for name, tensor in state.weights().items()}

    def flags(self, state: TrainingState) -> tuple[str, ...]:
        """``diverged``: the loss became infinite or NaN; ``stuck``: the training images were told
        apart no better than by always guessing the commonest class, within a standard error."""
        if state.diverged:
            return ("diverged",)
        labels = self.loader.images.listing.labels[self.splits.train]
        share = np.bincount(labels).max() / len(labels)
        error = math.sqrt(share * (1 - share) / len(labels))
        return ("stuck",) if self.measured(state)["top1"] <= share + error else ()

    def final_metrics(self, state: TrainingState) -> dict[str, float]:
        """The last ``train/loss`` and ``train/top1``; those of chance after divergence."""
        if not state.diverged:
            return named("train", self.measured(state))
        expected = chance(len(state.network.class_names))
        return {"train/loss": expected["nll"], "train/top1": expected["top1"]}


class _Clock:
    """How fast training goes since the last validation."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.num_images = 0
        self.loss = math.nan

    @property
    def _images_per_s(self) -> float:
        return self.num_images / max(time.monotonic() - self._started, 1e-9)

    def report(self, context: Context, step: int) -> None:
        """Record the rate, if anything was trained."""
        if self.num_images:
            context.timing("train/images_per_s", self._images_per_s, step)

    def shown(self, training: Training, step: int) -> dict[str, float | int]:
        """What people watch besides the step."""
        shown: dict[str, float | int] = {
            "epoch": training.order.epoch_of(step - 1) + 1,
            "images_per_s": self._images_per_s,
        }
        return shown if math.isnan(self.loss) else shown | {"loss": self.loss}
