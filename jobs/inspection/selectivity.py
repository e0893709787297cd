"""Which classes single units answer to: their average precision, and the labels they pick out.

After Agrawal, Girshick, Malik: Analyzing the performance of multilayer neural networks for object
recognition, ECCV 2014, sections 3.1 and 3.2.  Images on which a unit answers alike are told apart
by nothing: their order cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.floating]

NUM_TOP = 100  # images from the top at which the entropy of labels is looked at
_MAX_ELEMENTS = 1 << 21  # of the largest array in memory


@dataclass(frozen=True)
class Selectivity:
    """Of U units: how well each detects a class, and how mixed the images are that excite it most.

    ``average_precision`` (float64, (K, U)) is that of the unit as a detector of each class; NaN
    for a class without images.  ``entropy_area`` (float64, U) is 0 for a unit whose top images are
    all of one class, and 1 where every class is equally frequent among them.
    """

    average_precision: Floats
    entropy_area: Floats

    @property
    def best(self) -> Floats:
        """Of each unit the highest average precision over the classes (float64, U)."""
        return np.asarray(np.nanmax(self.average_precision, axis=0))

    @property
    def best_class(self) -> Indices:
        """The class that each unit detects best (int64, U)."""
        return np.asarray(np.nanargmax(self.average_precision, axis=0))


def selectivity(
    activations: Matrix, labels: Labels, num_classes: int, num_top: int = NUM_TOP
) -> Selectivity:
    """The selectivity of units whose `activations` (N, U) on images with `labels` (int64, N) are
    given; of a convolutional unit take its maximum over the places.

    Average precision is sum_n (R_n - R_(n-1)) P_n over the distinct activations.  The entropy's
    area is the mean over r = 1 .. `num_top` (N if there are fewer) of the entropy of the labels of
    the r images with the highest activations, over log K; where r falls among equal activations,
    those images count with the share that is taken of them.
    """
    num_images, num_units = activations.shape
    precision, area = np.empty((num_classes, num_units)), np.empty(num_units)
    for chunk in _chunks(num_units, num_images * (num_classes + 8)):
        order, last = _ranked(activations[:, chunk])
        ranked = labels[order]
        precision[:, chunk] = _average_precision(ranked, last, num_classes)
        area[chunk] = _entropy_area(ranked, last, num_classes, min(num_top, num_images))
    return Selectivity(precision, area)


def _chunks(num_units: int, elements_per_unit: int) -> Iterator[slice]:
    size = max(1, _MAX_ELEMENTS // elements_per_unit)
    return (slice(start, start + size) for start in range(0, num_units, size))


def _ranked(activations: Matrix) -> tuple[Indices, Indices]:
    """Images by descending activation (N, U), and for each rank the last one of equal activation
    (N, U)."""
    order = np.argsort(-activations, axis=0, kind="stable")
    values = np.take_along_axis(activations, order, axis=0)
    ends = np.ones(values.shape, np.bool_)
    ends[:-1] = values[1:] != values[:-1]
    return order, _next_where(ends)


def _next_where(wanted: npt.NDArray[np.bool_]) -> Indices:
    """For each place along the first axis the next one, from itself on, that is `wanted`."""
    places = np.arange(len(wanted))[:, None]
    candidates = np.where(wanted, places, len(wanted) - 1)
    return np.asarray(np.minimum.accumulate(candidates[::-1], axis=0)[::-1])


def _average_precision(ranked: Labels, last: Indices, num_classes: int) -> Floats:
    """(K, U) from the labels by rank and each rank's last of equal activation.

    Sorted by class, then rank, every unit has its images of class k at the same places: those from
    the number of images of smaller classes on.
    """
    counts = np.bincount(ranked[:, 0], minlength=num_classes)
    starts = np.concatenate([[0], np.cumsum(counts)])
    by_class = np.argsort(ranked, axis=0, kind="stable")
    taken = np.take_along_axis(last, by_class, axis=0)  # rank of the last that comes along
    ends = np.ones(taken.shape, np.bool_)
    ends[:-1] = taken[1:] != taken[:-1]
    ends[starts[1:][counts > 0] - 1] = True
    right = _next_where(ends) - np.repeat(starts[:-1], counts)[:, None] + 1
    precision = right / (taken + 1)
    found = np.full((num_classes, ranked.shape[1]), np.nan)
    for label in np.flatnonzero(counts):
        found[label] = precision[starts[label] : starts[label + 1]].mean(axis=0)
    return found


def _entropy_area(ranked: Labels, last: Indices, num_classes: int, num_top: int) -> Floats:
    """(U,): the mean entropy of the labels of the top r = 1 .. `num_top`, over log K."""
    if num_classes < 2:
        return np.zeros(ranked.shape[1])
    one_hot = ranked[..., None] == np.arange(num_classes)
    counts = np.zeros((len(ranked) + 1, *one_hot.shape[1:]))  # of each class among the first n
    np.cumsum(one_hot, axis=0, out=counts[1:])
    units = np.arange(ranked.shape[1])
    ends = last[:num_top] + 1
    begins = np.zeros_like(ends)  # how many have a higher activation than the r-th
    new = np.zeros(ends.shape, np.bool_)
    new[1:] = ends[1:] != ends[:-1]
    begins[1:] = np.where(new[1:], np.arange(1, num_top)[:, None], 0)
    begins = np.maximum.accumulate(begins, axis=0)
    r = np.arange(1, num_top + 1)[:, None]
    share = ((r - begins) / (ends - begins))[..., None]
    before, behind = counts[begins, units], counts[ends, units]
    frequency = (before + share * (behind - before)) / r[..., None]
    surprise = -np.log(frequency, out=np.zeros_like(frequency), where=frequency > 0)
    return np.asarray((frequency * surprise).sum(axis=2).mean(axis=0) / np.log(num_classes))
