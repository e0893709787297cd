"""The k nearest training samples vote (Cover, Hart 1967): exact, by squared L2 distance.

Of equally near samples the one that comes first counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.measure.truth import truth
from jobs.solvers.linear import Floats, Labels, Samples, gram

_AT_ONCE = 1024  # samples: distances of more are never in memory


class Nearest:
    """The `most` nearest of the training samples (N, D), for several numbers of neighbours.

    What was looked up last is remembered: candidates are validated on the same samples in turn.
    """

    def __init__(self, train: Samples, most: int) -> None:
        self._train = train
        self._lengths = (train.astype(np.float64) ** 2).sum(axis=1)
        self._most = min(most, len(train))
        self._last: tuple[Samples, npt.NDArray[np.int64]] | None = None

    def of(self, samples: Samples) -> npt.NDArray[np.int64]:
        """The numbers of the training samples nearest to `samples` (M, D): (M, most), in order."""
        if self._last is None or self._last[0] is not samples:
            found = [np.zeros((0, self._most), np.int64)]
            for start in range(0, len(samples), _AT_ONCE):
                part = samples[start : start + _AT_ONCE]
                distances = self._lengths - 2 * gram(part, self._train)  # less what all share
                found.append(least(distances, self._most))
            self._last = samples, np.concatenate(found)
        return self._last[1]


def least(values: Floats, most: int) -> npt.NDArray[np.int64]:
    """Where the `most` least of each row (M, N) are, in order; of equal ones the first: (M, most).

    As a stable sort of the rows would say, many times as fast.
    """
    if most == 0:
        return np.zeros((len(values), 0), np.int64)
    places = np.argpartition(values, most - 1, axis=1)[:, :most]
    chosen = np.take_along_axis(values, places, axis=1)
    found = np.take_along_axis(places, np.lexsort((places, chosen), axis=1), axis=1)
    is_open = (values <= chosen.max(axis=1, keepdims=True)).sum(axis=1) != most
    found[is_open] = np.argsort(values[is_open], axis=1, kind="stable")[:, :most]
    return found


@dataclass(frozen=True)
class Neighbours:
    """Votes of the k nearest training samples; ``of_class`` (N, K): which of them is what."""

    nearest: Nearest
    of_class: npt.NDArray[np.bool_]
    k: int
    multi_label: bool
    converged: bool = True

    def responses(self, samples: Samples) -> Floats:
        """The share of the k votes that each class gets: (N, D) to (N, K)."""
        return np.asarray(self.of_class[self.nearest.of(samples)[:, : self.k]].mean(axis=1))

    def scores(self, responses: Floats) -> Floats:
        """Logits of the shares, drawn towards ignorance as if one more had voted for all."""
        ignorance = 1 / 2 if self.multi_label else 1 / responses.shape[1]
        shares = (responses * self.k + ignorance) / (self.k + 1)
        odds = np.log(shares) - np.log1p(-shares) if self.multi_label else np.log(shares)
        return np.asarray(odds)


def fit(
    samples: Samples, labels: Labels, num_classes: int, candidates: tuple[float, ...]
) -> Iterator[Neighbours]:
    """A classifier for each number of neighbours, in their order."""
    nearest = Nearest(samples, int(max(candidates)))
    for k in candidates:
        yield Neighbours(nearest, truth(labels, num_classes), int(k), labels.ndim == 2)
