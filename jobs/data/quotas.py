"""How many images of each class: shares, totals and long tails in whole numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from ftd.seeds import keyed_hash
from jobs.data.keyed import Indices
from jobs.data.listing import Listing
from jobs.params.classes import ImbalanceParams

Counts = npt.NDArray[np.int64]


def largest_remainder(counts: Counts, fraction: float) -> Counts:
    """`fraction` of each of `counts` (int64, K) in whole numbers, by Hamilton's method.

    They add up to the rounded share of the total: what is left after rounding down goes to the
    largest remainders.
    """
    exact = counts * fraction
    shares = np.floor(exact).astype(np.int64)
    left = round(float(exact.sum())) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[: max(left, 0)]] += 1
    capped: Counts = np.minimum(shares, counts)
    return capped


def proportional(counts: Counts, total: int) -> Counts:
    """`total` (at most the sum) divided in the proportions of `counts` (int64, K), by Webster's
    method: the i-th seat of class c (from 0) has its turn at (i + 1/2) / counts[c].

    Unlike largest remainders, a larger total never gives a class less, so that subsets are nested.
    """
    turns = np.concatenate([(np.arange(n) + 0.5) / n for n in counts.tolist()])
    classes = np.repeat(np.arange(len(counts)), counts)
    first = np.lexsort((classes, turns))[:total]
    return np.bincount(classes[first], minlength=len(counts))


def long_tail(imbalance: ImbalanceParams, largest: int, total: int, ranks: Indices) -> Counts:
    """Images of each class under `imbalance`; class c is the ranks[c]-th of the tail (int64, K).

    With hold: max the largest class has `largest`; with hold: total all together have `total`.
    Every class has one at least.
    """
    num_classes = len(ranks)
    shape = imbalance.ratio ** (-ranks / max(num_classes - 1, 1))
    if imbalance.hold == "max":
        return np.maximum(np.rint(largest * shape).astype(np.int64), 1)
    if total < num_classes:
        raise DataError(f"{total} images are fewer than the {num_classes} classes")
    exact = total * shape / shape.sum()
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    while (left := total - int(counts.sum())) != 0:  # a few rounds: one seat at a time per class
        short = np.argsort(counts - exact, kind="stable")
        if left > 0:
            counts[short[:left]] += 1
        else:
            over = [c for c in short[::-1].tolist() if counts[c] > 1]
            counts[over[:-left]] -= 1
    return counts


def tail_ranks(class_names: tuple[str, ...], seed: int) -> Indices:
    """Which place in the tail each class has (int64, K; 0: the largest); `seed` is that of the
    stream ``classes``.

    Adding a class leaves the order of the others as it is.
    """
    keys = [keyed_hash("tail", seed, name) for name in class_names]
    ranks = np.empty(len(keys), np.int64)
    ranks[np.argsort(keys)] = np.arange(len(keys))
    return ranks


def require_available(listing: Listing, have: Counts, wanted: Counts, parameter: str) -> None:
    """Raise DataError when of some class fewer than `wanted` (int64, K) samples are there."""
    short = np.flatnonzero(have < wanted)
    if len(short):
        guilty = int(short[0])
        same = (wanted == wanted[0]).all()
        raise DataError(
            f"{parameter}: {wanted[guilty]} asked for, but class {listing.class_names[guilty]} "
            f"has only {have[guilty]} images to choose from",
            where=listing.where,
            fix=f"Ask for at most {int(have.min())}, or change the split" if same
            else "Ask for fewer, or change the split",
        )  # fmt: skip
