"""Who trains, who validates, who tests: three disjoint sets of samples.

Images are chosen by their content's digest under the seed of the stream ``split``, never by
position, so that adding images moves few others.  Groups are chosen by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from ftd.printable import printable
from ftd.seeds import keyed_hash
from jobs.data.groups import Groups
from jobs.data.keyed import Bits, Indices, keyed_order
from jobs.data.listing import SPLITS, Listing
from jobs.data.quotas import Counts, largest_remainder, proportional, require_available
from jobs.params.target import TargetParams

NUM_BLOCKS = 12  # per neighbourhood; few and long: only a block's ends have neighbours elsewhere


@dataclass(frozen=True)
class Splits:
    """Sample indices (int64, ascending) of the three sets; ``val`` may be empty."""

    train: Indices
    val: Indices
    test: Indices

    def by_name(self) -> Mapping[str, Indices]:
        """The sets by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class Quota:
    """How much a set takes: a fraction, a number per class or a total; the last two are exact."""

    name: str
    fraction: float
    per_class: int | None
    total: int | None


def split(
    listing: Listing,
    digests: Bits,
    target: TargetParams,
    seed: int,
    members: Indices | None = None,
) -> Splits:
    """Split the samples `members` (ascending; None: all) of `listing` as `target` says.

    `seed` is that of the stream ``split``.  Raises DataError when there are not enough images of a
    class, or none at all in a set that needs some, or when given sets share a group.
    """
    everything = np.arange(len(listing)) if members is None else members
    choose = _Choice(listing, digests, target, seed, everything)
    match target.split:
        case "given":
            splits = choose.given()
        case "blocks":
            splits = choose.blocks()
        case _:
            splits = choose.random()
    for name, indices in splits.by_name().items():
        if len(indices) or name != "val":
            _require_classes(listing, everything, name, indices)
    return splits


def _require_classes(listing: Listing, members: Indices, name: str, indices: Indices) -> None:
    """Refuse a training set without a class that has images, and scores of one class out of two.

    With more classes, means over classes leave out those that a set has no image of.
    """
    num_classes = len(listing.class_names)
    wanted = listing.images_per_class(members) > 0
    if name != "train" and (num_classes > 2 or listing.multi_label) and len(indices):
        return
    missing = wanted & (listing.images_per_class(indices) == 0)
    alone = num_classes == 2 and not listing.multi_label and not wanted.all()
    if missing.any() or alone:
        guilty = int(np.argmax(missing | ~wanted))
        raise DataError(
            f"the {name} set has no image of class {listing.class_names[guilty]}",
            where=listing.where,
            fix="Add images, remove the class, or split in another way",
        )


class _Choice:
    """The three ways to split one listing.

    Classes keep their shares in all sets; with several labels per image there is one stratum.
    """

    def __init__(
        self, listing: Listing, digests: Bits, target: TargetParams, seed: int, members: Indices
    ) -> None:
        self.listing, self.digests, self.target, self.seed = listing, digests, target, seed
        self.members = members
        several = listing.multi_label
        self.strata = np.zeros(len(listing), np.int64) if several else listing.labels
        self.num_strata = 1 if several else len(listing.class_names)
        self.test = Quota("test", target.test_fraction, target.test_per_class, target.test_count)
        self.val = Quota("val", target.val_fraction, target.val_per_class, target.val_count)

    def random(self) -> Splits:
        test, tested = self._taken(self.members, self.test)
        rest = np.setdiff1d(self.members, tested)
        val, validated = self._taken(rest, self.val)
        return Splits(np.setdiff1d(rest, validated), val, test)

    def given(self) -> Splits:
        assert self.listing.given is not None, "resolved: this dataset has a split of its own"
        given = np.array(self.listing.given)[self.members]
        train, val, test = (self.members[given == name] for name in SPLITS)
        self._check_groups(train, val, test)
        if not len(val):
            val, validated = self._taken(train, self.val)
            train = np.setdiff1d(train, validated)
        elif self.val.per_class is not None or self.val.total is not None:
            val = self._exactly(val, self.val)
        if self.test.per_class is not None or self.test.total is not None:
            test = self._exactly(test, self.test)
        return Splits(train, val, test)

    def blocks(self) -> Splits:
        """Whole blocks of neighbours go to one set; blocks are drawn within each neighbourhood."""
        if self.listing.groups is not None:
            raise DataError(
                "split: blocks does not know groups", where=self.listing.where, fix="Use random"
            )
        test: list[Indices] = []
        rest: list[Indices] = []
        for blocks in self._blocks_by_neighbourhood():
            num_test = max(1, round(self.target.test_fraction * len(blocks)))
            test += blocks[:num_test]
            rest += blocks[num_test:]
        if not rest:
            raise DataError("too few images for split: blocks", where=self.listing.where)
        num_val, val = self._val_blocks(rest)
        return Splits(_union(rest[num_val:]), val, _union(test))

    def _blocks_by_neighbourhood(self) -> list[list[Indices]]:
        """Per neighbourhood its blocks of consecutive samples, in the seed's order."""
        names = np.array(self.listing.neighbourhoods or [""] * len(self.listing))[self.members]
        ordered = []
        for name in sorted(set(names.tolist())):
            near = self.members[names == name]
            blocks = np.array_split(near, min(NUM_BLOCKS, len(near)))
            keys = [keyed_hash("block", self.seed, name, i) for i in range(len(blocks))]
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
        have = np.zeros(self.num_strata, np.int64)
        while have.min() < wanted and num_val < len(rest):
            have += self._counts(rest[num_val])
            num_val += 1
        return num_val, self._exactly(_union(rest[:num_val]), self.val)

    def _taken(self, indices: Indices, quota: Quota) -> tuple[Indices, Indices]:
        """Those of `indices` that make up a set, and those that no other set may have.

        They differ where a number is exact and groups are whole: the rest of a group stays unused.
        """
        if self.listing.groups is None:
            chosen = self._exactly(indices, quota)
            return chosen, chosen
        groups = Groups(
            indices, self.listing.groups, self.strata, self.num_strata,
            "split-group", quota.name, self.seed,
        )  # fmt: skip
        wanted = self._wanted(indices, quota)
        if quota.per_class is None and quota.total is None:
            taken = groups.about(wanted)
            return taken, taken
        taken = groups.at_least(wanted)
        return self._first(taken, quota.name, wanted), taken

    def _exactly(self, indices: Indices, quota: Quota) -> Indices:
        return self._first(indices, quota.name, self._wanted(indices, quota))

    def _wanted(self, indices: Indices, quota: Quota) -> Counts:
        """How many of each stratum of `indices` the set takes."""
        have = self._counts(indices)
        if quota.per_class is not None:
            wanted = np.full(len(have), quota.per_class)
            require_available(self.listing, have, wanted, f"target.{quota.name}_per_class")
            return wanted
        if quota.total is not None:
            if quota.total > len(indices):
                raise DataError(
                    f"target.{quota.name}_count: {quota.total} asked for, but there are only "
                    f"{len(indices)} images to choose from",
                    where=self.listing.where,
                    fix="Ask for fewer",
                )
            return proportional(have, quota.total)
        return largest_remainder(have, quota.fraction)

    def _counts(self, indices: Indices) -> Counts:
        return np.bincount(self.strata[indices], minlength=self.num_strata)

    def _first(self, indices: Indices, name: str, counts: Counts) -> Indices:
        ordered = indices[keyed_order(self.digests[indices], "split", name, self.seed)]
        return first_per_class(ordered, self.strata, counts)

    def _check_groups(self, *sets: Indices) -> None:
        """Raise DataError when a group is in two of the given sets."""
        groups = self.listing.groups
        if groups is None:
            return
        home: dict[str, str] = {}
        for name, indices in zip(SPLITS, sets, strict=True):
            for group in {groups[index] for index in indices.tolist()}:
                if home.setdefault(group, name) != name:
                    raise DataError(
                        f"group {printable(group)} is in the given sets {home[group]} and {name}",
                        where=self.listing.where,
                        fix="Keep its images together, or use split: random",
                    )


def first_per_class(ordered: Indices, labels: npt.NDArray[np.int64], counts: Counts) -> Indices:
    """The first ``counts[c]`` of each class c in the order given; ascending indices."""
    chosen = [ordered[labels[ordered] == c][:count] for c, count in enumerate(counts.tolist())]
    return np.sort(np.concatenate(chosen))


def _union(blocks: list[Indices]) -> Indices:
    return np.sort(np.concatenate([np.empty(0, np.int64), *blocks]))
