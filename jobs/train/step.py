"""One optimizer step: a function of (parameters, state, step index, batch).

The gradient of the batch, in parts where asked; what is added to it; the update; the average.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from jobs.data.batches import Batch
from jobs.models.treatment import hold
from jobs.params.train import TrainParams
from jobs.train.loss import Objective
from jobs.train.optimizer import set_lr
from jobs.train.schedule import lr_factor
from jobs.train.state import TrainingState
from jobs.train.unfreeze import waiting

# of images that the network has just seen, added up
Penalty = Callable[[torch.Tensor], torch.Tensor]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Stepper:
    """Takes the steps of one run; `penalty` is added to the loss."""

    params: TrainParams
    objective: Objective
    num_steps: int
    steps_per_epoch: int
    device: str
    penalty: Penalty | None = None

    def take(self, state: TrainingState, batch: Batch) -> None:
        """Train `state` on `batch`, and count its loss and right answers."""
        factor = lr_factor(self.params, state.step, self.num_steps, self.steps_per_epoch)
        if state.found_lr is not None:
            factor *= state.found_lr
        self.take_at(state, batch, factor)

    def take_at(self, state: TrainingState, batch: Batch, factor: float) -> None:
        """The same with learning rates of `factor` times their peaks."""
        network, step = state.network, state.step
        set_lr(state.optimizer, factor)
        if self.params.unfreeze is not None:
            chosen = network.treatments
            hold(network, waiting(self.params.unfreeze, chosen, step, self.steps_per_epoch))
        network.train()
        state.optimizer.zero_grad()
        counted = self._gradient(state, batch)
        self._update(state)
        if step % self.steps_per_epoch == 0:
            state.sums.zero_()
        state.sums += counted
        state.step += 1

    def _gradient(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """Leave the gradient of the batch's mean loss; its loss times images, and right answers."""
        targets = self.objective.targets(batch)
        weight = self.objective.weight(targets)
        num_images = targets.shape[0]
        num_parts = -(-num_images // (self.params.micro_batch_size or num_images))
        losses, rights = [], []
        for images, labels, keys in zip(
            batch.images.tensor_split(num_parts),
            targets.tensor_split(num_parts),
            batch.keys.tensor_split(num_parts),
            strict=True,
        ):
            state.network.set_keys(state.step, keys)
            with self._precision():
                logits = state.network(images)
            logits = logits.float()
            loss = self.objective.sum(logits, labels) / weight
            if self.penalty is not None:
                loss = loss + self.penalty(images) / num_images
            scaled = loss if state.scaler is None else state.scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach().double() * num_images)
            rights.append(self.objective.num_right(logits.detach(), labels).double())
        if num_parts == 1:
            return torch.stack([losses[0], rights[0]])
        return torch.stack([torch.stack(losses).sum(), torch.stack(rights).sum()])

    def _update(self, state: TrainingState) -> None:
        """Change the weights by their gradients."""
        optimizer, clip_norm = state.optimizer, self.params.clip_norm
        if state.scaler is not None:
            state.scaler.unscale_(optimizer)
        if state.start is not None:
            state.start.add_to_gradients()
        if clip_norm is not None:
            learning = [own for group in optimizer.param_groups for own in group["params"]]
            torch.nn.utils.clip_grad_norm_(learning, clip_norm)
        if state.scaler is None:
            optimizer.step()
        else:
            state.scaler.step(optimizer)
            state.scaler.update()
        if state.average is not None:
            state.average.update()

    def _precision(self) -> AbstractContextManager[object]:
        dtype = _DTYPES.get(self.params.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device, dtype)
