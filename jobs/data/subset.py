"""Nested subsets: n training images per class, those of a smaller n among those of a larger."""

from __future__ import annotations

import numpy as np

from jobs.data.keyed import Bits, Indices, keyed_order
from jobs.data.listing import Listing
from jobs.data.splits import first_per_class, require_per_class


def subset(
    listing: Listing, digests: Bits, train: Indices, per_class: int | None, seed: int
) -> Indices:
    """The first `per_class` of every class in one seeded permutation of `train`; None: all.

    `seed` is that of the stream ``subset``.  Returns ascending indices; raises DataError when a
    class has too few.
    """
    if per_class is None:
        return train
    require_per_class(listing, train, per_class, "target.per_class")
    ordered = train[keyed_order(digests[train], "subset", seed)]
    counts = np.full(len(listing.class_names), per_class)
    return first_per_class(ordered, listing.labels, counts)
