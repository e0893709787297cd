"""Linear classifiers as all solvers give them: responses of hyperplanes, and what they mean."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Samples = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

NEVER = -1e3  # the score of a class that nothing was learned of


class Fitted(Protocol):
    """A classifier that was fitted on training samples."""

    @property
    def converged(self) -> bool:
        """Whether every optimisation reached its tolerance."""

    def responses(self, samples: Samples) -> Floats:
        """(N, D) to (N, R); those of several views of an image may be added up."""

    def scores(self, responses: Floats) -> Floats:
        """(N, R) to (N, classes): the largest one names the class."""


@dataclass(frozen=True)
class Linear:
    """One hyperplane for each class: response = weights x + offset.

    ``weights`` (K, D) and ``offsets`` (K,) are float64.
    """

    weights: Floats
    offsets: Floats
    converged: bool = True

    def responses(self, samples: Samples) -> Floats:
        """(N, D) to (N, K)."""
        return np.asarray(samples @ self.weights.T.astype(samples.dtype), np.float64) + self.offsets

    def scores(self, responses: Floats) -> Floats:
        """The responses themselves."""
        return responses


@dataclass(frozen=True)
class Pairwise:
    """One hyperplane for each pair of classes (i, j), i < j: a positive response is a vote for i.

    Ties of votes are broken by the sum of the responses, which never outweighs a vote.
    """

    weights: Floats
    offsets: Floats
    num_classes: int
    converged: bool = True

    def responses(self, samples: Samples) -> Floats:
        """(N, D) to (N, K (K - 1) / 2)."""
        return Linear(self.weights, self.offsets).responses(samples)

    def scores(self, responses: Floats) -> Floats:
        """Votes, and what breaks their ties: (N, K)."""
        votes = np.zeros((len(responses), self.num_classes))
        sums = np.zeros_like(votes)
        pairs = itertools.combinations(range(self.num_classes), 2)
        for (first, second), response in zip(pairs, responses.T, strict=True):
            votes[:, first] += response > 0
            votes[:, second] += response <= 0
            sums[:, first] += response
            sums[:, second] -= response
        return np.asarray(votes + sums / (3 * (np.abs(sums) + 1)))


def gram(first: Samples, second: Samples, at_once: int = 4096) -> Floats:
    """The inner products (N, M) of two sets of samples, summed in float64, a few axes at a time."""
    found = np.zeros((len(first), len(second)))
    for start in range(0, first.shape[1], at_once):
        part = slice(start, start + at_once)
        left = first[:, part].astype(np.float64)
        right = left if second is first else second[:, part].astype(np.float64)
        found += left @ right.T
    return found
