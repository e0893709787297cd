"""Predictions of validation and test samples as a table that people can open."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.data.keyed import Indices
from jobs.data.listing import Listing
from jobs.measure.calibration import log_probabilities


def write_predictions(
    path: Path,
    listing: Listing,
    splits: Mapping[str, tuple[Indices, npt.NDArray[np.float32]]],
) -> None:
    """Write CSV: id, split, label, predicted, and one column ``p(class)`` per class.

    `splits` maps a split's name to its samples and their logits (N, K).  Several labels are
    separated by semicolons; predicted are then those with a probability above one half.
    """
    names = np.array(listing.class_names, dtype=object)
    several = listing.labels.ndim == 2
    # File names may hold bytes that are no text; they come out as they went in.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "split", "label", "predicted", *(f"p({name})" for name in names)])
        for split, (indices, logits) in splits.items():
            if several:
                probabilities = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
                predicted = [";".join(names[row > 0]) for row in logits]
                labels = [";".join(names[row == 1]) for row in listing.labels[indices]]
            else:
                probabilities = np.exp(log_probabilities(logits))
                predicted = names[logits.argmax(axis=1)].tolist()
                labels = names[listing.labels[indices]].tolist()
            for row in zip(indices.tolist(), labels, predicted, probabilities, strict=True):
                index, label, said, shares = row
                table.writerow(
                    [listing.ids[index], split, label, said, *(f"{p:.6g}" for p in shares)]
                )
