"""What is kept of predictions: also results class by class, which are too many for metrics."""

from __future__ import annotations

import json
from pathlib import Path

from ftd.job import Context
from jobs.measure.confusion import confusion
from jobs.measure.predictions import TABLE, Predictions
from jobs.measure.scoring import Scoring
from jobs.sources import PREDICTIONS

DETAILS = "classes.json"
MAX_CONFUSION = 1000  # classes; the matrix of more would be larger than all predictions


def keep_predictions(context: Context, scoring: Scoring, predictions: Predictions) -> None:
    """Keep finite predictions as artifacts: a table, results class by class, and all digits."""
    context.artifact(TABLE, predictions.write_table)
    context.artifact(DETAILS, lambda path: write_details(path, scoring, predictions))
    context.artifact(PREDICTIONS, predictions.write)


def write_details(path: Path, scoring: Scoring, predictions: Predictions) -> None:
    """Write, for each split with samples (and finite logits), its values per class.

    ``confusion`` (one label per image): a row for each true class, counts of the predicted ones.
    """
    found: dict[str, object] = {"class_names": list(predictions.class_names)}
    for split, said in predictions.splits.items():
        if not len(said):
            continue
        values: dict[str, object] = dict(scoring.per_class(said.logits, said.labels))
        if not scoring.multi_label and scoring.num_classes <= MAX_CONFUSION:
            predicted = said.logits.argmax(axis=1)
            values["confusion"] = confusion(predicted, said.labels, scoring.num_classes).tolist()
        found[split] = values
    path.write_text(json.dumps(found))
