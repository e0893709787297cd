"""Results class by class, too many for metrics: recall, F1, AP, AUROC and confusion as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.data.keyed import Indices
from jobs.data.listing import Listing
from jobs.measure.confusion import confusion
from jobs.measure.scoring import Scoring

MAX_CONFUSION = 1000  # classes; the matrix of more would be larger than all predictions


def write_details(
    path: Path,
    scoring: Scoring,
    listing: Listing,
    splits: Mapping[str, tuple[Indices, npt.NDArray[np.float32]]],
) -> None:
    """Write, for each split with samples and finite logits (N, K), its values per class.

    ``confusion`` (one label per image): a row for each true class, counts of the predicted ones.
    """
    found: dict[str, object] = {"class_names": list(listing.class_names)}
    for split, (indices, logits) in splits.items():
        if not len(indices):
            continue
        labels = listing.labels[indices]
        values: dict[str, object] = dict(scoring.per_class(logits, labels))
        if not scoring.multi_label and scoring.num_classes <= MAX_CONFUSION:
            predicted = logits.argmax(axis=1)
            values["confusion"] = confusion(predicted, labels, scoring.num_classes).tolist()
        found[split] = values
    path.write_text(json.dumps(found))
