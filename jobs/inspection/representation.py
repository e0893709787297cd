"""One layer's features of the same images before and after fine-tuning, compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.inspection.alignment import linear_cka
from jobs.inspection.selectivity import Selectivity, selectivity
from jobs.inspection.separability import scatter

Labels = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.floating]

SELECTIVE = 0.5  # average precision from which on a unit counts as selective; chosen here


@dataclass(frozen=True)
class Features:
    """What a layer says about N images: ``means`` (N, D) over the places of its map, and the
    ``peaks`` (N, D), the maxima."""

    means: Matrix
    peaks: Matrix


@dataclass(frozen=True)
class Side:
    """Of one network: how far the layer tells the classes apart, and its units' selectivity."""

    separability: float
    units: Selectivity

    def measures(self) -> dict[str, float]:
        """By name: ``separability``, ``selectivity`` (mean over units of the best average
        precision), ``selective`` (share of units where that is at least `SELECTIVE`) and
        ``label_entropy`` (mean over units of the entropy's area)."""
        best = self.units.best
        return {
            "separability": self.separability,
            "selectivity": float(best.mean()),
            "selective": float((best >= SELECTIVE).mean()),
            "label_entropy": float(self.units.entropy_area.mean()),
        }


def side(features: Features, labels: Labels, num_classes: int) -> Side:
    """Measure one network's `features` of images with `labels` (int64, N)."""
    return Side(
        scatter(features.means, labels).separability,
        selectivity(features.peaks, labels, num_classes),
    )


def cka(before: Features, after: Features) -> float:
    """Linear CKA between the means of both networks."""
    return linear_cka(before.means, after.means)


def most_selective(after: Side, count: int) -> list[int]:
    """The units of the highest average precision, the highest first; of equal ones the first."""
    return list(map(int, np.argsort(-after.units.best, kind="stable")[:count]))


def most_exciting(peaks: Matrix, unit: int, count: int) -> list[int]:
    """The images with the highest peaks of `unit`, the highest first; of equal ones the first.

    Those of its lowest peak are none: of a dead unit, no image is.
    """
    order = np.argsort(-peaks[:, unit], kind="stable")[:count]
    return [int(row) for row in order if peaks[row, unit] > peaks[:, unit].min()]
