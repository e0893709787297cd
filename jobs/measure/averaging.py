"""The mean of what several networks say about the same images: an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from jobs.measure.predictions import Predicted, Predictions

Floats = npt.NDArray[np.float64]


def averaged(members: Mapping[str, Predictions]) -> Predictions:
    """The mean probabilities of `members` (two or more, by name), as logits.

    A split is left out unless all have the same images in it, known by their content; test must
    be the same.  Raises DataError for members of other classes, or tested on other images.
    """
    names = list(members)
    first = members[names[0]]
    for name in names[1:]:
        other = members[name]
        if (other.class_names, other.multi_label) != (first.class_names, first.multi_label):
            raise DataError(
                f"{names[0]} and {name} tell other classes apart",
                where="runs",
                fix="Name runs on the same target",
            )
    splits = {}
    for split in first.splits:
        parts = [member.splits[split] for member in members.values() if split in member.splits]
        if len(parts) == len(members) and _same_images(parts):
            splits[split] = mean_of([_ordered(part) for part in parts])
        elif split == "test":
            raise DataError(
                f"{', '.join(names)} were not tested on the same images with the same labels",
                where="runs",
                fix="Name runs of one replicate, or pin their split (seeds: {split: 0})",
            )
    same_tail = all(member.terciles == first.terciles for member in members.values())
    return replace(first, splits=splits, terciles=first.terciles if same_tail else ())


def _same_images(parts: Sequence[Predicted]) -> bool:
    first, *others = (_ordered(part) for part in parts)
    return all(
        np.array_equal(first.digests, other.digests) and np.array_equal(first.labels, other.labels)
        for other in others
    )


def _ordered(part: Predicted) -> Predicted:
    """The same samples by ascending digest."""
    order = np.argsort(part.digests)
    return Predicted(
        tuple(part.ids[index] for index in order.tolist()),
        part.digests[order],
        part.labels[order],
        part.logits[order],
    )


def mean_of(parts: Sequence[Predicted]) -> Predicted:
    """The same samples with the mean of the probabilities, as logits: their logarithm, or with
    several labels their log-odds."""
    first = parts[0]
    log_mean = _log_mean([part.log_probabilities for part in parts])
    if first.labels.ndim == 2:
        log_mean = log_mean - _log_mean([part.log_complements for part in parts])
    return replace(first, logits=log_mean.astype(np.float32))


def _log_mean(logarithms: Sequence[Floats]) -> Floats:
    """The logarithm of the mean of what has these logarithms."""
    return np.asarray(np.logaddexp.reduce(np.stack(logarithms)) - np.log(len(logarithms)))
