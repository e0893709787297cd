"""Nested subsets: training images of a smaller number are among those of a larger one."""

from __future__ import annotations

import numpy as np

from ftd.errors import DataError
from jobs.data.keyed import Bits, Indices, keyed_order
from jobs.data.listing import Listing
from jobs.data.quotas import Counts, long_tail, proportional, require_available, tail_ranks
from jobs.data.splits import first_per_class
from jobs.params.target import TargetParams


def subset(
    listing: Listing,
    digests: Bits,
    train: Indices,
    target: TargetParams,
    seed: int,
    classes_seed: int,
) -> Indices:
    """Those of `train` that `target` asks for: of every class the first in one seeded permutation.

    `seed` is that of the stream ``subset``, `classes_seed` that of ``classes``, which draws the
    tail's classes.  Returns ascending indices; raises DataError when a class has too few.
    """
    several = listing.multi_label
    strata = np.zeros(len(listing), np.int64) if several else listing.labels
    have = np.bincount(strata[train], minlength=1 if several else len(listing.class_names))
    counts = _counts(listing, have, target, classes_seed)
    if counts is None:
        return train
    ordered = train[keyed_order(digests[train], "subset", seed)]
    return first_per_class(ordered, strata, counts)


def _counts(
    listing: Listing, have: Counts, target: TargetParams, classes_seed: int
) -> Counts | None:
    """How many of each stratum, of those there are; None for all."""
    num_wanted = target.num_images
    if target.train_fraction is not None:
        num_wanted = round(target.train_fraction * int(have.sum()))
    if target.imbalance is not None:
        largest = target.per_class or 0
        total = num_wanted or largest * len(have)
        ranks = tail_ranks(listing.class_names, classes_seed)
        counts = long_tail(target.imbalance, largest, total, ranks)
        require_available(listing, have, counts, "target.imbalance")
        return counts
    if target.per_class is not None:
        counts = np.full(len(have), target.per_class)
        require_available(listing, have, counts, "target.per_class")
        return counts
    if num_wanted is None:
        return None
    if num_wanted > have.sum():
        raise DataError(
            f"target.num_images: {num_wanted} asked for, but there are only {have.sum()} training "
            "images",
            where=listing.where,
            fix=f"Ask for at most {have.sum()}",
        )
    counts = proportional(have, num_wanted)
    empty = np.flatnonzero((counts == 0) & (have > 0))
    if len(empty):
        raise DataError(
            f"{num_wanted} training images leave none for class {listing.class_names[empty[0]]}",
            where=listing.where,
            fix="Ask for more, or use target.per_class",
        )
    return counts
