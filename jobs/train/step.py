"""One optimizer step: a function of (parameters, state, step index, batch).

The gradient of the batch, in parts where asked; what is added to it; the update; the average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
class Part:
    """Images of a batch that are computed at once, with their targets and keys.

    ``weight`` is what all targets of the batch count together, ``num_images`` how many there are.
    """

    images: torch.Tensor
    targets: torch.Tensor
    keys: torch.Tensor
    weight: float | torch.Tensor
    num_images: int

    @classmethod
    def of(cls, batch: Batch, objective: Objective, number: int) -> list[Part]:
        """The whole `batch` in so many parts, evenly cut."""
        targets = objective.targets(batch)
        weight, num_images = objective.weight(targets), len(batch.labels)
        return [
            cls(*tensors, weight, num_images)
            for tensors in zip(
                batch.images.tensor_split(number),
                targets.tensor_split(number),
                batch.keys.tensor_split(number),
                strict=True,
            )
        ]

    def judged(
        self, objective: Objective, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What `logits` of these images add to the batch's mean loss; that times the batch's
        images, and right answers (float64, 2)."""
        logits = logits.float()
        loss = objective.sum(logits, self.targets) / self.weight
        right = objective.num_right(logits.detach(), self.targets).double()
        return loss, torch.stack([loss.detach().double() * self.num_images, right])


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
        found = []
        for part in self.parts(batch):
            loss, counted = self.loss(state, part)
            scaled = loss if state.scaler is None else state.scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
            found.append(counted)
        return found[0] if len(found) == 1 else torch.stack(found).sum(0)

    def parts(self, batch: Batch) -> Sequence[Part]:
        """What of the batch is computed at once."""
        most = self.params.micro_batch_size or len(batch.labels)
        return Part.of(batch, self.objective, -(-len(batch.labels) // most))

    def loss(self, state: TrainingState, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """What a part adds to the batch's mean loss; that times the batch's images, and right
        answers (float64, 2)."""
        state.network.set_keys(state.step, part.keys)
        with self.precision():
            logits = state.network(part.images)
        loss, counted = part.judged(self.objective, logits)
        if self.penalty is not None:
            loss = loss + self.penalty(part.images) / part.num_images
            counted[0] = loss.detach().double() * part.num_images
        return loss, counted

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

    def precision(self) -> AbstractContextManager[object]:
        """Within it, the network computes as ``train.precision`` says."""
        dtype = _DTYPES.get(self.params.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device, dtype)
