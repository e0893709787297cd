"""Who trains, who validates, who tests: three disjoint sets of samples.

Images are chosen by their content's digest under the seed of the stream ``split``, never by
position, so that adding images moves few others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from ftd.seeds import keyed_hash
from jobs.data.keyed import Bits, Indices, keyed_order
from jobs.data.listing import SPLITS, Listing
from jobs.params.target import TargetParams

NUM_BLOCKS = 12  # per group; few and long, because only a block's ends have neighbours elsewhere


@dataclass(frozen=True)
class Splits:
    """Sample indices (int64, ascending) of the three sets; ``val`` may be empty."""

    train: Indices
    val: Indices
    test: Indices

    def by_name(self) -> Mapping[str, Indices]:
        """The sets by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


def split(listing: Listing, digests: Bits, target: TargetParams, seed: int) -> Splits:
    """Split `listing`'s samples as `target` says; `seed` is that of the stream ``split``.

    Raises DataError when a class has not enough images for ``val_per_class``, or none at all in a
    set that needs some.
    """
    choose = _Choice(listing, digests, target, seed)
    match target.split:
        case "given":
            splits = choose.given()
        case "blocks":
            splits = choose.blocks()
        case _:
            splits = choose.random()
    for name, indices in splits.by_name().items():
        if len(indices) or name != "val":
            _require_classes(listing, name, indices)
    return splits


def largest_remainder(counts: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.int64]:
    """`fraction` of each of `counts` (int64, K) in whole numbers, by Hamilton's method.

    They add up to the rounded share of the total: what is left after rounding down goes to the
    largest remainders.
    """
    exact = counts * fraction
    shares = np.floor(exact).astype(np.int64)
    left = round(float(exact.sum())) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[: max(left, 0)]] += 1
    capped: npt.NDArray[np.int64] = np.minimum(shares, counts)
    return capped


def _require_classes(listing: Listing, name: str, indices: Indices) -> None:
    """Refuse a training set without a class that has images, and scores of one class out of two.

    With more classes, means over classes leave out those that a set has no image of.
    """
    num_classes = len(listing.class_names)
    wanted = np.bincount(listing.labels, minlength=num_classes) > 0
    if name != "train" and num_classes > 2:
        return
    missing = wanted & (np.bincount(listing.labels[indices], minlength=num_classes) == 0)
    if missing.any() or (num_classes == 2 and not wanted.all()):
        guilty = int(np.argmax(missing | ~wanted))
        raise DataError(
            f"the {name} set has no image of class {listing.class_names[guilty]}",
            where=listing.where,
            fix="Add images, remove the class, or split in another way",
        )


class _Choice:
    """The three ways to split one listing."""

    def __init__(self, listing: Listing, digests: Bits, target: TargetParams, seed: int) -> None:
        self.listing, self.digests, self.target, self.seed = listing, digests, target, seed

    def random(self) -> Splits:
        everything = np.arange(len(self.listing))
        test = self._fraction(everything, "test", self.target.test_fraction)
        rest = np.setdiff1d(everything, test)
        val = self._val_of(rest)
        return Splits(np.setdiff1d(rest, val), val, test)

    def given(self) -> Splits:
        assert self.listing.given is not None, "resolved: only folders are split by their owner"
        train, val, test = (np.flatnonzero(np.array(self.listing.given) == name) for name in SPLITS)
        if not len(val):
            val = self._val_of(train)
            train = np.setdiff1d(train, val)
        elif self.target.val_per_class is not None:
            val = self._per_class(val, self.target.val_per_class)
        return Splits(train, val, test)

    def blocks(self) -> Splits:
        """Whole blocks of neighbours go to one set; blocks are drawn within each group."""
        test: list[Indices] = []
        rest: list[Indices] = []
        for blocks in self._blocks_by_group():
            num_test = max(1, round(self.target.test_fraction * len(blocks)))
            test += blocks[:num_test]
            rest += blocks[num_test:]
        if not rest:
            raise DataError("too few images for split: blocks", where=self.listing.where)
        num_val, val = self._val_blocks(rest)
        return Splits(_union(rest[num_val:]), val, _union(test))

    def _blocks_by_group(self) -> list[list[Indices]]:
        """Per group its blocks of consecutive samples, in the seed's order."""
        groups = np.array(self.listing.groups or [""] * len(self.listing))
        ordered = []
        for group in sorted(set(groups.tolist())):
            members = np.flatnonzero(groups == group)
            blocks = np.array_split(members, min(NUM_BLOCKS, len(members)))
            keys = [keyed_hash("block", self.seed, group, i) for i in range(len(blocks))]
            ordered.append([blocks[i] for i in np.argsort(keys)])
        return ordered

    def _val_blocks(self, rest: list[Indices]) -> tuple[int, Indices]:
        """How many of the blocks in `rest` (reordered in place) validate, and the samples that do.

        With val_per_class: as few blocks as hold that many of every class; their other samples
        stay unused, being neighbours of those that validate.
        """
        keys = [keyed_hash("val-block", self.seed, int(block[0])) for block in rest]
        rest[:] = [rest[i] for i in np.argsort(keys)]
        wanted = self.target.val_per_class
        if wanted is None:
            num_val = round(self.target.val_fraction * len(rest))
            return num_val, _union(rest[:num_val])
        num_val = 0
        num_classes = len(self.listing.class_names)
        have = np.zeros(num_classes, np.int64)
        while have.min() < wanted and num_val < len(rest):
            have += np.bincount(self.listing.labels[rest[num_val]], minlength=num_classes)
            num_val += 1
        return num_val, self._per_class(_union(rest[:num_val]), wanted)

    def _val_of(self, rest: Indices) -> Indices:
        if self.target.val_per_class is not None:
            return self._per_class(rest, self.target.val_per_class)
        return self._fraction(rest, "val", self.target.val_fraction)

    def _fraction(self, indices: Indices, name: str, fraction: float) -> Indices:
        counts = np.bincount(self.listing.labels[indices], minlength=len(self.listing.class_names))
        return self._first(indices, name, largest_remainder(counts, fraction))

    def _per_class(self, indices: Indices, wanted: int) -> Indices:
        require_per_class(self.listing, indices, wanted, "target.val_per_class")
        return self._first(indices, "val", np.full(len(self.listing.class_names), wanted))

    def _first(self, indices: Indices, name: str, counts: npt.NDArray[np.int64]) -> Indices:
        ordered = indices[keyed_order(self.digests[indices], "split", name, self.seed)]
        return first_per_class(ordered, self.listing.labels, counts)


def first_per_class(
    ordered: Indices, labels: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> Indices:
    """The first ``counts[c]`` of each class c in the order given; ascending indices."""
    chosen = [ordered[labels[ordered] == c][:count] for c, count in enumerate(counts.tolist())]
    return np.sort(np.concatenate(chosen))


def require_per_class(listing: Listing, indices: Indices, wanted: int, parameter: str) -> None:
    """Raise DataError when some class has fewer than `wanted` samples among `indices`."""
    have = np.bincount(listing.labels[indices], minlength=len(listing.class_names))
    for name, available in zip(listing.class_names, have.tolist(), strict=True):
        if available < wanted:
            raise DataError(
                f"{parameter}: {wanted} asked for, but class {name} has only {available} "
                "images to choose from",
                where=listing.where,
                fix=f"Ask for at most {int(have.min())}, or change the split",
            )


def _union(blocks: list[Indices]) -> Indices:
    return np.sort(np.concatenate([np.empty(0, np.int64), *blocks]))
