"""How well a linear classifier does on a layer's features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.solvers import ridge
from jobs.solvers.normalise import unit_length

Labels = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.floating]

# Of ridge regression on features of length 1, the same for all layers, before and after: nothing
# is chosen by the images that it is measured on.  The value is ours.
PENALTY = 0.1


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) with the classes (int64, N) of their images."""

    features: Matrix
    labels: Labels


def probed(train: Labelled, val: Labelled, num_classes: int) -> float:
    """Mean recall over the classes in `val` of a linear classifier fitted to `train`, 0 to 1."""
    (fitted,) = ridge.fit(unit_length(train.features), train.labels, num_classes, (PENALTY,))
    said = fitted.scores(fitted.responses(unit_length(val.features))).argmax(axis=1)
    present = np.unique(val.labels)
    return float(np.mean([(said[val.labels == label] == label).mean() for label in present]))
