"""Distances between descriptors: what they are, and bounds on many of them at once.

Each is defined on pairs of float64 rows.  Symmetric Kullback-Leibler divergence and the distances
of vectors are also matrix products; the others are not, and are summed element by element, pair by
pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from jobs.descriptors.histograms import EPSILON
from jobs.params.descriptors import BetweenHistograms, BetweenVectors

Floats = npt.NDArray[np.float64]
Measure = BetweenHistograms | BetweenVectors

PRODUCTS: tuple[Measure, ...] = ("kl", "l2", "cosine")

# A product is summed in float32 over few columns, those sums are summed in float32 for a while, and
# in float64 from then on: the fewer terms, the tighter the bound.
COLUMNS, SUMS = 128, 16
_TERMS = COLUMNS + SUMS + 8  # and what rounding the factors does
_ROUNDING = 2.0**-24  # of float32
# Of a sum of products in any order, relative to the sum of their absolute values: Higham, Accuracy
# and stability of numerical algorithms, 2002, sections 3.1 and 4.2.
RELATIVE_ERROR = _TERMS * _ROUNDING / (1 - _TERMS * _ROUNDING)


def prepared(measure: Measure, rows: Floats) -> Floats:
    """Descriptors (float64, (N, D)) as `measure` compares them: float64 (F, N, D).

    For kl the shares and their logarithms; for cosine rows of length 1 (or 0); else as they are.
    """
    if measure == "kl":
        both = np.empty((2, *rows.shape))
        both[0] = rows
        np.log(np.add(rows, EPSILON, out=both[1]), out=both[1])
        return both
    if measure == "cosine":
        lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
        rows = rows / np.where(lengths > 0, lengths, 1)
    return rows[None]


def distances(measure: Measure, one: Floats, other: Floats, weights: Floats) -> Floats:
    """The distance between row i of `one` and row i of `other` (:func:`prepared`): float64 (N).

    For histograms `weights` (float64, D) is how much a bin counts:

    * kl: w/2 [KL(p || q) + KL(q || p)], KL(p || q) = sum p log((p + e) / (q + e)), e = EPSILON
    * js: w/2 [KL(p || m) + KL(q || m)], m = (p + q) / 2, without e: where m is 0, so are p and q
    * l1: w |p - q|;  chi2: w/2 (p - q)^2 / (p + q)

    For vectors they are 1: l2 and cosine give the square |x - y|^2, see :func:`as_told`.  A single
    row of `one` or `other` stands for as many as the other side has.  Equal pairs have equal
    distances, whatever they stand beside; a row's distance to itself is 0.
    """
    found: Floats = (_TERM[measure](one, other) * weights).sum(axis=1)
    return found


def as_told(measure: Measure, found: Floats) -> Floats:
    """What people call the distance: of l2 the root, of cosine 1 - cos."""
    if measure == "l2":
        return np.sqrt(found)
    return found / 2 if measure == "cosine" else found


def _kl(one: Floats, other: Floats) -> Floats:
    shares, logarithms = one - other
    found: Floats = 0.5 * shares * logarithms
    return found


def _js(one: Floats, other: Floats) -> Floats:
    both = one[0] + other[0]
    return 0.5 * (_relative(one[0], both) + _relative(other[0], both))


def _relative(p: Floats, both: Floats) -> Floats:
    """p log(2 p / both), 0 where p is."""
    ratio = np.divide(2 * p, both, out=np.ones_like(both), where=p > 0)
    found: Floats = p * np.log(ratio)
    return found


def _l1(one: Floats, other: Floats) -> Floats:
    found: Floats = np.abs(one[0] - other[0])
    return found


def _chi2(one: Floats, other: Floats) -> Floats:
    both = one[0] + other[0]
    squared = _squared(one, other)
    found: Floats = np.divide(squared, both, out=np.zeros_like(both), where=both > 0) / 2
    return found


def _squared(one: Floats, other: Floats) -> Floats:
    found: Floats = (one[0] - other[0]) ** 2
    return found


_TERM: Mapping[Measure, Callable[[Floats, Floats], Floats]] = {
    "kl": _kl, "js": _js, "l1": _l1, "chi2": _chi2, "l2": _squared, "cosine": _squared,
}  # fmt: skip


class Comparison(Protocol):
    """Bounds on the distances of all pairs of two sets of rows, on a device."""

    def operand(self, chunks: Iterable[Floats], num_rows: int) -> Any:
        """`num_rows` :func:`prepared` rows, some at a time, made ready for :meth:`bounds`."""

    def bounds(self, targets: Any, pool: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Below and above the distances of T rows and P others: float64 (T, P) each."""


def comparison(measure: Measure, weights: Floats, device: str) -> Comparison:
    """How all pairs are compared."""
    if measure not in PRODUCTS:
        return _Elementwise(measure, weights)
    return _Jeffreys(weights, device) if measure == "kl" else _Squares(device)


@dataclass(frozen=True)
class _Operand:
    """One side of products: float32 (N, D) each, and what is added per row: float64 (N)."""

    factors: tuple[torch.Tensor, ...]
    constants: torch.Tensor

    @classmethod
    def of(
        cls,
        chunks: Iterable[Floats],
        num_rows: int,
        scale: Floats,
        constants: Callable[[Floats], Floats],
        device: torch.device,
    ) -> _Operand:
        """From `num_rows` rows (float64, (F, n, D), some at a time) times `scale` (D)."""
        factors: npt.NDArray[np.float32] | None = None
        per_row, start = np.empty(num_rows), 0
        for chunk in chunks:
            if factors is None:
                factors = np.empty((len(chunk), num_rows, chunk.shape[2]), np.float32)
            rows = slice(start, start + chunk.shape[1])
            np.multiply(chunk, scale, out=factors[:, rows], casting="same_kind")
            per_row[rows] = constants(chunk)
            start = rows.stop
        assert factors is not None and start == num_rows, "nobody compares with nothing"
        on_device = torch.from_numpy(factors).to(device)
        return cls(tuple(on_device), torch.from_numpy(per_row).to(device))


class _Jeffreys:
    """kl as 1/2 [sum w p log p + sum w q log q - (w p) . log q - (w log p) . q].

    No product is positive (but for rounding, as no share is above 1), so that the error of a sum is
    a known part of the sum itself.
    """

    def __init__(self, weights: Floats, device: str) -> None:
        self._weights = weights
        self._device = torch.device(device)

    def operand(self, chunks: Iterable[Floats], num_rows: int) -> _Operand:
        scale = np.sqrt(self._weights)  # half on either side of a product
        return _Operand.of(chunks, num_rows, scale, self._entropies, self._device)

    def bounds(self, targets: _Operand, pool: _Operand) -> tuple[torch.Tensor, torch.Tensor]:
        (shares, logarithms), (pool_shares, pool_logarithms) = targets.factors, pool.factors
        crossed = _product((shares, pool_logarithms), (logarithms, pool_shares))
        error = crossed.abs().mul_(RELATIVE_ERROR / 2)
        found = crossed.neg_().add_(targets.constants[:, None]).add_(pool.constants).div_(2)
        return found - error, found + error

    def _entropies(self, rows: Floats) -> Floats:
        found: Floats = (rows[0] * rows[1]) @ self._weights
        return found


class _Squares:
    """|x - y|^2 as |x|^2 + |y|^2 - 2 x . y; 2 |x| |y| <= |x|^2 + |y|^2 bounds the error."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def operand(self, chunks: Iterable[Floats], num_rows: int) -> _Operand:
        one = np.ones(1)
        return _Operand.of(chunks, num_rows, one, lambda x: (x[0] ** 2).sum(axis=1), self._device)

    def bounds(self, targets: _Operand, pool: _Operand) -> tuple[torch.Tensor, torch.Tensor]:
        squares = targets.constants[:, None] + pool.constants
        found = _product((targets.factors[0], pool.factors[0])).mul_(-2).add_(squares)
        error = squares.mul_(RELATIVE_ERROR)
        return found - error, found + error


class _Elementwise:
    """Distances that are no products: exact, and many times slower."""

    def __init__(self, measure: Measure, weights: Floats) -> None:
        self._measure, self._weights = measure, weights

    def operand(self, chunks: Iterable[Floats], num_rows: int) -> list[Floats]:
        return list(chunks)

    def bounds(
        self, targets: list[Floats], pool: list[Floats]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = [
            [distances(self._measure, row[:, None], part, self._weights) for part in pool]
            for chunk in targets
            for row in chunk.swapaxes(0, 1)
        ]
        exact = torch.from_numpy(np.stack([np.concatenate(row) for row in found]))
        return exact, exact


def _product(*pairs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The sum over pairs of matrices (T, D), (P, D) of one times the transpose of the other.

    Float64 (T, P), within RELATIVE_ERROR of the sum of the absolute products.
    """
    shape = (len(pairs[0][0]), len(pairs[0][1]))
    device = pairs[0][0].device
    total = torch.zeros(shape, dtype=torch.float64, device=device)
    some, part = torch.zeros(shape, device=device), torch.empty(shape, device=device)
    with _whole_float32():
        for one, other in pairs:
            for number, start in enumerate(range(0, one.shape[1], COLUMNS), start=1):
                columns = slice(start, start + COLUMNS)
                torch.mm(one[:, columns], other[:, columns].T, out=part)
                some += part
                if number % SUMS == 0:
                    total += some
                    some.zero_()
            total += some
            some.zero_()
    return total


@contextmanager
def _whole_float32() -> Iterator[None]:
    """No TensorFloat-32, whatever else the run computes with: the bounds know of none."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
