"""A plain training loop, as a good practitioner writes one for a single experiment.

The yardstick of the job ``finetune``: the same network, images, batch sizes, optimizer, schedule,
validation and selection of the best weights, with every trick for speed that the job uses
(channels-last tensors where they help, a fused optimizer, images decoded beforehand) and nothing
else: no keyed randomness, no checkpoints, no records.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Split:
    """Images (uint8, (N, H, W, 3)) and labels (int64, N)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; `head` names its classifier, `frozen` all the rest."""

    head: str
    frozen: bool
    layout: torch.memory_format
    epochs: int
    batch_size: int
    eval_batch_size: int
    lr: float
    head_lr: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


Pauses = Generator[None, None, float]


class PlainLoop:
    """Trains one network; images are bytes until their batch is normalised.

    Its methods pause (yield) after every batch, so that somebody else can have a turn.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network = network.to(memory_format=recipe.layout)
        self.recipe = recipe
        self.head = network.get_submodule(recipe.head)
        mean, std = torch.tensor(recipe.mean), torch.tensor(recipe.std)
        # (x / 255 - mean) / std as one multiplication and one addition
        self.scale = (1 / (255 * std)).view(1, 3, 1, 1)
        self.shift = (-mean / std).view(1, 3, 1, 1)

    def train(self, train: Split, val: Split) -> Pauses:
        """Train, validating after every epoch; leaves the best weights in the network."""
        steps_per_epoch = -(-len(train.labels) // self.recipe.batch_size)
        optimizer = self._optimizer()
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, self.recipe.epochs * steps_per_epoch
        )
        best_accuracy, best = -1.0, self.network.state_dict()
        for _ in range(self.recipe.epochs):
            self._training_mode()
            loss_sum, num_right = 0.0, 0
            order = np.random.permutation(len(train.labels))
            for indices in np.array_split(order, steps_per_epoch):
                images = self._augmented(train.images[indices])
                labels = torch.from_numpy(train.labels[indices])
                logits = self.network(images)
                loss = functional.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                loss_sum += loss.item() * len(labels)
                num_right += int((logits.argmax(1) == labels).sum())
                yield
            accuracy = yield from self.evaluate(val)
            if accuracy > best_accuracy:
                best_accuracy = accuracy
                best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(best)
        return best_accuracy

    def evaluate(self, split: Split) -> Pauses:
        """The accuracy on `split`; also computes the loss, as people do."""
        self.network.eval()
        size = self.recipe.eval_batch_size
        num_right, loss_sum = 0, 0.0
        for start in range(0, len(split.labels), size):
            images = torch.from_numpy(split.images[start : start + size])
            labels = torch.from_numpy(split.labels[start : start + size])
            with torch.inference_mode():
                logits = self.network(self._normalised(images))
                num_right += int((logits.argmax(1) == labels).sum())
                loss_sum += float(functional.cross_entropy(logits, labels, reduction="sum"))
            yield
        return num_right / len(split.labels)

    def _optimizer(self) -> torch.optim.Optimizer:
        head = list(self.head.parameters())
        groups = [{"params": head, "lr": self.recipe.head_lr}]
        trunk = [own for own in self.network.parameters() if all(own is not new for new in head)]
        if self.recipe.frozen:
            for parameter in trunk:
                parameter.requires_grad_(False)
        else:
            groups.append({"params": trunk, "lr": self.recipe.lr})
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4, fused=True)

    def _training_mode(self) -> None:
        self.network.train()
        if self.recipe.frozen:
            self.network.eval()
            self.head.train()

    def _augmented(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        images = torch.from_numpy(pixels)
        mirrored = torch.rand(len(images)) < 0.5
        images[mirrored] = images[mirrored].flip(2)
        return self._normalised(images)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        floats = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=self.recipe.layout)
        return floats.mul_(self.scale).add_(self.shift)
