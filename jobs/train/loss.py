"""What training makes small, and how many images are told apart on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ftd.errors import DataError, closest
from jobs.data.batches import Batch
from jobs.params.train import TrainParams


@dataclass(frozen=True)
class Objective:
    """Cross-entropy over K classes; with `several` labels per image binary cross-entropy of each.

    ``class_weights`` (float32, K), where given, say what the images of each class count.
    """

    num_classes: int
    several: bool = False
    label_smoothing: float = 0.0
    class_weights: torch.Tensor | None = None

    def targets(self, batch: Batch) -> torch.Tensor:
        """The labels to learn: as they are, or shares of the classes (float32, (N, K)) if mixed."""
        if batch.mix is None:
            return batch.labels
        labels = batch.labels
        if not self.several:
            labels = functional.one_hot(labels, self.num_classes)
        labels = labels.float()
        return torch.lerp(labels[batch.mix.partner], labels, batch.mix.share.unsqueeze(1))

    def weight(self, targets: torch.Tensor) -> float | torch.Tensor:
        """What all `targets` count together: the loss of a batch is its sum divided by this."""
        if self.class_weights is None:
            return targets.shape[0]
        if targets.dim() == 1:
            return self.class_weights[targets].sum()
        return (targets * self.class_weights).sum()

    def sum(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The losses of images added up; with several labels each image counts their mean."""
        if self.several:
            wanted = targets.to(logits.dtype) * (1 - self.label_smoothing)
            wanted = wanted + self.label_smoothing / 2
            loss = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
            return loss / self.num_classes
        return functional.cross_entropy(
            logits,
            targets,
            self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def num_right(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How many images are recognised; with several labels each counts its share of them.

        Of a mixed image the larger part has to be recognised.
        """
        if self.several:
            return ((logits > 0) == (targets > 0.5)).double().mean(dim=1).sum()
        if targets.dim() == 2:
            targets = targets.argmax(dim=1)
        return (logits.argmax(dim=1) == targets).sum()


def objective(
    train: TrainParams, class_names: Sequence[str], labels: npt.NDArray[np.int64], device: str
) -> Objective:
    """What `train` asks for, on training images with these `labels` (N, or (N, K)).

    Raises DataError for weights of classes that there are not.
    """
    weights, several = None, labels.ndim == 2
    if train.class_weights is not None:
        if train.class_weights == "balanced":
            found = _balanced(labels, len(class_names))
        else:
            found = _named(train.class_weights, class_names)
        weights = torch.tensor(found, dtype=torch.float32, device=device)
    return Objective(len(class_names), several, train.label_smoothing, weights)


def _balanced(labels: npt.NDArray[np.int64], num_classes: int) -> list[float]:
    """N / (K x images of the class), K the classes that occur, as scikit-learn has it."""
    counts = np.bincount(labels, minlength=num_classes)
    return list(len(labels) / ((counts > 0).sum() * np.maximum(counts, 1)))


def _named(weights: Mapping[str, float], class_names: Sequence[str]) -> list[float]:
    for name in weights:
        if name not in class_names:
            raise DataError(
                f"train.class_weights names '{name}', which is no class of the target",
                fix=closest(name, list(class_names)) or f"Classes: {', '.join(class_names[:20])}",
            )
    return [weights.get(name, 1.0) for name in class_names]
