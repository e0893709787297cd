"""What a network said about validation and test samples, kept for people and for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load_file, save_file

from ftd.errors import DataError
from ftd.job import Context
from jobs.data.images import Images
from jobs.data.keyed import Bits, Indices
from jobs.measure.calibration import log_probabilities
from jobs.measure.scoring import Labels, Logits, Scoring
from jobs.sources import PREDICTIONS

TABLE = "predictions.csv"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """Samples with what they are and what was said: ids (N names), digests (uint64, N), labels
    (int64, N, or zeros and ones, (N, K)) and logits (float32, (N, K))."""

    ids: Sequence[str]
    digests: Bits
    labels: Labels
    logits: Logits

    @classmethod
    def of(cls, images: Images, indices: Indices, logits: Logits) -> Predicted:
        """`logits` (N, K) of the N samples with these `indices`."""
        listing = images.listing
        ids = tuple(listing.ids[index] for index in indices.tolist())
        return cls(ids, images.digests[indices], listing.labels[indices], logits)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def log_probabilities(self) -> Floats:
        """Logarithm of the softmax, or with several labels of the sigmoid (float64, (N, K))."""
        if self.labels.ndim == 2:
            return -np.logaddexp(0, -self.logits.astype(np.float64))
        return log_probabilities(self.logits)

    @property
    def log_complements(self) -> Floats:
        """With several labels, logarithm of one less the probability (float64, (N, K))."""
        return -np.logaddexp(0, self.logits.astype(np.float64))


@dataclass(frozen=True)
class Predictions:
    """Of one network: its classes, and the predicted samples by split.

    ``terciles`` are class numbers, as in :class:`jobs.measure.scoring.Scoring`.
    """

    class_names: tuple[str, ...]
    multi_label: bool
    terciles: tuple[tuple[int, ...], ...]
    splits: Mapping[str, Predicted]

    @classmethod
    def of(
        cls, class_names: tuple[str, ...], scoring: Scoring, splits: Mapping[str, Predicted]
    ) -> Predictions:
        """What was said about `splits`, measured by `scoring`."""
        terciles = tuple(tuple(classes.tolist()) for classes in scoring.terciles)
        return cls(class_names, scoring.multi_label, terciles, splits)

    def write_table(self, path: Path) -> None:
        """Write CSV: id, split, label, predicted, and one column ``p(class)`` per class.

        Several labels are separated by semicolons; predicted are then those with a probability
        above one half.
        """
        names = np.array(self.class_names, dtype=object)
        heading = ["id", "split", "label", "predicted", *(f"p({name})" for name in names)]
        # File names may hold bytes that are no text; they come out as they went in.
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            table = csv.writer(stream)
            table.writerow(heading)
            for split, found in self.splits.items():
                if self.multi_label:
                    predicted = [";".join(names[row > 0]) for row in found.logits]
                    labels = [";".join(names[row == 1]) for row in found.labels]
                else:
                    predicted = names[found.logits.argmax(axis=1)].tolist()
                    labels = names[found.labels].tolist()
                shares = np.exp(found.log_probabilities).T.tolist()
                columns = [[f"{share:.6g}" for share in of_class] for of_class in shares]
                splits = [split] * len(found)
                table.writerows(zip(found.ids, splits, labels, predicted, *columns, strict=True))

    def write(self, path: Path) -> None:
        """Write safetensors that :meth:`read` gives back; equal predictions are equal files."""
        described = {
            "class_names": self.class_names,
            "multi_label": self.multi_label,
            "terciles": self.terciles,
            "ids": {split: list(found.ids) for split, found in self.splits.items()},
        }
        tensors: dict[str, npt.NDArray[Any]] = {}
        for split, found in self.splits.items():
            tensors |= {
                f"{split}/digests": found.digests.view(np.int64),
                f"{split}/labels": found.labels,
                f"{split}/logits": found.logits,
            }
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(contiguous, path, {"ftd": json.dumps(described, sort_keys=True)})

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """What :meth:`write` wrote; DataError for any other file."""
        try:
            with safetensors.safe_open(path, "np") as stream:
                told = json.loads((stream.metadata() or {})["ftd"])
            tensors = load_file(path)
            splits = {
                split: Predicted(
                    tuple(ids),
                    tensors[f"{split}/digests"].view(np.uint64),
                    tensors[f"{split}/labels"],
                    tensors[f"{split}/logits"],
                )
                for split, ids in told["ids"].items()
            }
            terciles = tuple(tuple(classes) for classes in told["terciles"])
            return cls(tuple(told["class_names"]), told["multi_label"], terciles, splits)
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"no predictions ({error!r})", where=str(path)) from error


def tested_on(run: str, context: Context) -> Bits:
    """The digests (uint64, N) of the images that `run` was tested on, from what it kept."""
    return Predictions.read(context.kept(run, PREDICTIONS)).splits["test"].digests
