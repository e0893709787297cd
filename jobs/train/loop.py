"""The training loop: steps, validation at the ends of epochs, a place to leave after each.

A step is a pure function of (parameters, state, step index), so a run that was left and resumed
equals one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ftd.errors import InputError
from ftd.job import Context
from ftd.metric_names import goodness
from jobs.data.augment import Augmentation
from jobs.data.batches import Batch, Loader
from jobs.data.keyed import Bits
from jobs.data.order import BalancedOrder, Order
from jobs.data.prepare import Data
from jobs.data.splits import Splits
from jobs.measure.chance import chance, within_error
from jobs.measure.evaluate import evaluate
from jobs.measure.scoring import Labels, Scoring, named
from jobs.params.target import TargetParams
from jobs.params.train import TrainParams
from jobs.records import Preprocessing
from jobs.train.loss import Objective, objective
from jobs.train.state import Tensors, TrainingState
from jobs.train.step import Penalty, Stepper

Around = Callable[["Training", TrainingState, Callable[[], None]], None]

CHECK_EVERY = 25  # steps between two looks at the loss, which make a GPU wait


@dataclass(frozen=True)
class Training:
    """What stays the same during a run; the weights after the steps `keep_at` are kept too."""

    params: TrainParams
    loader: Loader
    splits: Splits
    order: Order
    augmentation: Augmentation
    objective: Objective
    scoring: Scoring
    context: Context
    keep_at: tuple[int, ...] = ()

    @classmethod
    def on(
        cls,
        data: Data,
        target: TargetParams,
        params: TrainParams,
        preprocessing: Preprocessing,
        context: Context,
        keep_at: tuple[int, ...] = (),
    ) -> Training:
        """Training on the images of the resolved `target`."""
        crop_size = target.crop_size or target.decode_size
        digests = data.images.digests[data.splits.train]
        labels = data.listing.labels[data.splits.train]
        num_classes = len(data.listing.class_names)
        return cls(
            params=params,
            loader=Loader(data.images, crop_size, preprocessing, context.device),
            splits=data.splits,
            order=_order(params, digests, labels, context.seeds["order"]),
            augmentation=Augmentation(
                target.decode_size,
                crop_size,
                params.flip,
                params.crop == "random",
                context.seeds["augment"],
                params.augment,
                preprocessing.interpolation,
            ),
            objective=objective(params, data.listing.class_names, labels, context.device),
            scoring=Scoring(num_classes, target.multi_label, data.terciles),
            context=context,
            keep_at=keep_at,
        )

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        epochs, per_epoch = self.params.epochs, self.order.steps_per_epoch
        return self.params.steps or (epochs or 0) * per_epoch

    def check(self) -> None:
        """Raise DataError when these images cannot give what the run goes by, or InputError when
        weights are to be kept after its end."""
        if max(self.keep_at, default=0) > self.num_steps:
            raise InputError(
                f"keep_at: {max(self.keep_at)}: training ends after {self.num_steps} steps",
                fix="Keep weights of earlier steps, or train longer",
            )
        if self.params.keep == "best" or self.params.early_stop is not None:
            labels = self.loader.images.listing.labels[self.splits.val]
            self.scoring.check_selection(self.params.select or "val/top1", labels)

    def validates_at(self, step: int) -> bool:
        """Whether the network is validated when `step` steps are done."""
        every = self.params.validate_every_epochs * self.order.steps_per_epoch
        return step == self.num_steps or (step > 0 and step % every == 0)

    def run(
        self, state: TrainingState, around: Around | None = None, penalty: Penalty | None = None
    ) -> None:
        """Train from where `state` stands to the end, or until the loss is no longer finite.

        `around`, if given, takes each step, and may do more before and after; `penalty` is added
        to the loss.
        """
        batches = self.batches(state.step)
        stepper = self.stepper(penalty)
        clock = _Clock()
        while not state.diverged:
            if self.validates_at(state.step) and state.validated_step < state.step:
                clock.report(self.context, state.step)
                self._validate(state)
                clock = _Clock()
                continue
            if state.step == self.num_steps or self._gives_up(state):
                break
            self.before_step(state)
            batch = next(batches)
            if around is None:
                stepper.take(state, batch)
            else:
                around(self, state, partial(stepper.take, state, batch))
            clock.num_images += len(batch.labels)
            if state.step in self.keep_at:
                state.keep()
            self._look(state, clock)
            self.context.checkpoint(state.step, state.writers)

    def batches(self, start: int) -> Iterator[Batch]:
        """The batches of all steps from `start` on."""
        steps = range(start, self.num_steps)
        return self.loader.training(self.splits.train, self.order, self.augmentation, steps)

    def stepper(self, penalty: Penalty | None) -> Stepper:
        """What takes the steps."""
        per_epoch, device = self.order.steps_per_epoch, self.context.device
        return Stepper(self.params, self.objective, self.num_steps, per_epoch, device, penalty)

    def before_step(self, state: TrainingState) -> None:
        """Whatever has to be done before the batch of the next step is asked for."""

    def _gives_up(self, state: TrainingState) -> bool:
        """Whether the validation just done ends training early."""
        over = state.patience is not None and state.patience.is_over(state.step)
        if over and self.validates_at(state.step):
            self.context.note("early_stop", step=state.step, num_steps=self.num_steps)
            return True
        return False

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
        """Mean loss and top-1 over the images of the current epoch, as they were trained on.

        With several labels per image, instead of top-1 the share of labels that are right.
        """
        loss, right = (state.sums / self.num_seen(state)).tolist()
        return {"loss": loss, self._right: right}

    def num_seen(self, state: TrainingState) -> int:
        """How many of the current epoch's images have been trained on."""
        part = (state.step - 1) % self.order.steps_per_epoch + 1
        return len(self.splits.train) * part // self.order.steps_per_epoch

    @property
    def _right(self) -> str:
        return "label_accuracy" if self.scoring.multi_label else "top1"

    def _validate(self, state: TrainingState) -> None:
        """Record the epoch's metrics and remember the best weights."""
        trained = None if state.average is None else state.show_average()
        self._validate_shown(state, trained)
        if trained is not None:
            state.load_weights(trained)
        if not state.diverged:
            state.validated_step = state.step
            self.context.checkpoint(state.step, state.writers)

    def _validate_shown(self, state: TrainingState, trained: Tensors | None) -> None:
        """As :meth:`_validate`, for what is in the network; `trained` goes into checkpoints."""

        def pause() -> None:
            self.context.checkpoint(state.step, lambda: state.writers(trained))

        found = named("train", self.measured(state))
        if len(self.splits.val):
            logits = evaluate(
                state.network, self.loader, self.splits.val, self.context.device, pause
            )
            if not np.isfinite(logits).all():
                state.diverged = True
                return
            labels = self.loader.images.listing.labels[self.splits.val]
            found |= named("val", self.scoring.metrics(logits, labels))
        for name, value in found.items():
            self.context.metric(name, value, state.step)
        select = self.params.select or "val/top1"
        if self.params.keep == "best":
            self._remember(state, found[select])
        if state.patience is not None:
            state.patience.look(state.step, found[select])

    def _remember(self, state: TrainingState, value: float) -> None:
        """Keep a copy of the weights when `value` beats all before (the earliest of equals)."""
        select = self.params.select or "val/top1"
        better = goodness(value, select) > goodness(state.best_value, select)
        if state.best_step == 0 or better:
            state.best_step, state.best_value = state.step, value
            state.best = {name: tensor.clone() for name, tensor in state.weights().items()}

    def flags(self, state: TrainingState) -> tuple[str, ...]:
        """``diverged``: the loss became infinite or NaN; ``stuck``: the training images were told
        apart no better than by always guessing the commonest class, within a standard error."""
        if state.diverged:
            return ("diverged",)
        labels = self.loader.images.listing.labels[self.splits.train]
        share = chance(labels)
        if self.params.sampling == "balanced":
            share = 1 / np.count_nonzero(np.bincount(labels))
        right = self.measured(state)[self._right]
        return ("stuck",) if within_error(right, share, labels.size) else ()

    def final_metrics(self, state: TrainingState) -> dict[str, float]:
        """The last ``train/loss`` and ``train/top1``, those of chance after divergence; and
        ``train/lr`` if it was searched for."""
        found = {} if state.found_lr is None else {"lr": state.found_lr}
        num_classes = self.scoring.num_classes
        if not state.diverged:
            found |= self.measured(state)
        elif self.scoring.multi_label:
            found |= {"loss": math.log(2), self._right: 0.5}
        else:
            found |= {"loss": math.log(num_classes), self._right: 1 / num_classes}
        return named("train", found)


def _order(train: TrainParams, digests: Bits, labels: Labels, seed: int) -> Order:
    """The order of training images with these `digests` and `labels`."""
    if train.sampling == "all":
        return Order(digests, train.batch_size, seed)
    return BalancedOrder(digests, train.batch_size, seed, labels=labels)


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
