"""Halves of two sets of images, drawn by content: what a measure's spread is taken over.

The standard deviation of an estimate over random halves of a sample is itself an estimate of the
standard error of the estimate from all of it (the jackknife that leaves out half: Shao and Wu, A
general theory for jackknife variance estimation, Annals of Statistics 17, 1989, with d = n / 2).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.data.keyed import Bits, Indices, keyed_bits, keyed_order


@dataclass(frozen=True)
class Half:
    """Rows (int64, ascending) of two sets: those chosen, and those left out."""

    first: Indices
    second: Indices
    first_rest: Indices
    second_rest: Indices


@dataclass(frozen=True)
class Estimate:
    """A measure's value, and its standard deviation over repeats (0 of a single one)."""

    value: float
    std: float

    @classmethod
    def of_repeats(cls, values: Sequence[float]) -> Estimate:
        """Their mean."""
        return cls(statistics.fmean(values), _std(values))

    @classmethod
    def of_whole(cls, value: float, repeats: Sequence[float]) -> Estimate:
        """A value of everything, and those of halves."""
        return cls(value, _std(repeats))


def halves(first: Bits, second: Bits, seed: int, repeats: int) -> list[Half]:
    """`repeats` halves of the samples with these digests (uint64, m and n)."""
    found = []
    for repeat in range(repeats):
        one, one_rest = _halved(first, seed, repeat)
        other, other_rest = _halved(second, seed, repeat)
        found.append(Half(one, other, one_rest, other_rest))
    return found


def over_halves(
    measure: Callable[[Indices, Indices], float], num_first: int, num_second: int,
    drawn: Sequence[Half],
) -> Estimate:  # fmt: skip
    """`measure` of the rows of two sets, all of them, with its spread over halves."""
    whole = measure(np.arange(num_first), np.arange(num_second))
    return Estimate.of_whole(whole, [measure(half.first, half.second) for half in drawn])


def apart(first: Bits, second: Bits, seed: int) -> tuple[Indices, Indices]:
    """Indices of the samples of two sets (digests, uint64) so that no image is in both.

    An image that both have stays in one, drawn by its content: a set and itself become two halves.
    """
    shared = np.intersect1d(first, second)
    in_first = shared[(keyed_bits(shared, "side", seed) & np.uint64(1)) == 0]
    in_second = np.setdiff1d(shared, in_first)
    return (
        np.flatnonzero(~np.isin(first, in_second)),
        np.flatnonzero(~np.isin(second, in_first)),
    )


def chosen(digests: Bits, number: int, seed: int) -> Indices:
    """`number` of the samples with these digests, ascending; a smaller number's are among them."""
    return np.sort(keyed_order(digests, "distance", seed)[:number])


def _halved(digests: Bits, seed: int, repeat: int) -> tuple[Indices, Indices]:
    order = keyed_order(digests, "half", seed, repeat)
    middle = len(digests) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
