"""Predictions of validation and test samples as a table that people can open."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.data.keyed import Indices
from jobs.data.listing import Listing
from jobs.measure.metrics import log_probabilities


def write_predictions(
    path: Path,
    listing: Listing,
    splits: Mapping[str, tuple[Indices, npt.NDArray[np.float32]]],
) -> None:
    """Write CSV: id, split, label, predicted, and one column ``p(class)`` per class.

    `splits` maps a split's name to its samples and their logits (N, K).
    """
    names = listing.class_names
    # File names may hold bytes that are no text; they come out as they went in.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "split", "label", "predicted", *(f"p({name})" for name in names)])
        for split, (indices, logits) in splits.items():
            probabilities = np.exp(log_probabilities(logits))
            rows = zip(indices.tolist(), logits.argmax(axis=1), probabilities, strict=True)
            for index, predicted, row in rows:
                label = names[listing.labels[index]]
                shares = [f"{p:.6g}" for p in row]
                table.writerow([listing.ids[index], split, label, names[predicted], *shares])
