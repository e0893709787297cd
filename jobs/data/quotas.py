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
    return np.asarray(np.bincount(classes[first], minlength=len(counts)))


def long_tail(imbalance: ImbalanceParams, largest: int, total: int, ranks: Indices) -> Counts:
    """Images of each class under `imbalance`; class c is the ranks[c]-th of the tail (int64, K).

    With hold: max the largest class has `largest`; with hold: total all together have `total`.
    Every class has one at least, and never fewer when there are more of all.
    """
    num_classes = len(ranks)
    shape = imbalance.ratio ** (-ranks / max(num_classes - 1, 1))
    if imbalance.hold == "max":
        return np.maximum(np.rint(largest * shape).astype(np.int64), 1)
    if total < num_classes:
        raise DataError(f"{total} images are fewer than the {num_classes} classes")
    # Webster's method, as above; that each class has one comes first
    exact = total * shape / shape.sum()
    num_seats = np.ceil(exact).astype(np.int64) + num_classes  # more than any class can get
    seats = np.concatenate([np.arange(n) for n in num_seats.tolist()])
    classes = np.repeat(np.arange(num_classes), num_seats)
    turns = np.where(seats == 0, 0.0, (seats + 0.5) / shape[classes])
    first = np.lexsort((ranks[classes], turns))[:total]
    return np.asarray(np.bincount(classes[first], minlength=num_classes))


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
