"""Groups never part: whatever the sizes asked for, a patient's images are in one set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import DataError
from jobs.data.listing import Listing
from jobs.data.quotas import largest_remainder
from jobs.data.splits import Splits, split
from jobs.params.target import TargetParams
from tests.listings import digests_for, made_up

seeds = st.integers(0, 2**62)
# Groups of one to five images, each of one to three classes.
grouped = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=30, max_size=60
).map(lambda groups: [[0], [1], [2]] * 8 + groups)

SIZES: list[dict[str, Any]] = [
    {"test_fraction": 0.3, "val_fraction": 0.2},
    {"test_per_class": 3, "val_per_class": 2},
    {"test_count": 9, "val_count": 6},
    {"test_fraction": 0.2, "val_count": 7},
]


def listing_of(groups: list[list[int]]) -> Listing:
    """Images labelled as in `groups`, one after the other."""
    names = [f"g{number}" for number, labels in enumerate(groups) for _ in labels]
    return made_up([label for labels in groups for label in labels], groups=tuple(names))


def chosen(listing: Listing, seed: int, **sizes: Any) -> Splits:
    wanted = TargetParams(dataset="csv", file="m.csv", **sizes)
    return split(listing, digests_for(listing), wanted, seed)


def groups_in(listing: Listing, indices: Any) -> set[str]:
    assert listing.groups is not None
    return {listing.groups[index] for index in indices.tolist()}


@given(grouped, seeds, st.sampled_from(SIZES))
def test_no_group_is_in_two_sets(groups: list[list[int]], seed: int, sizes: dict[str, Any]) -> None:
    """By fraction, by number per class and by total."""
    listing = listing_of(groups)
    found = chosen(listing, seed, **sizes)
    by_set = [groups_in(listing, indices) for indices in found.by_name().values()]
    assert not (by_set[0] & by_set[1] or by_set[0] & by_set[2] or by_set[1] & by_set[2])


@given(grouped, seeds)
def test_numbers_are_exact(groups: list[list[int]], seed: int) -> None:
    """Whole groups are set aside, and of them as many images are used as were asked for."""
    listing = listing_of(groups)
    found = chosen(listing, seed, test_per_class=3, val_count=6)
    assert listing.images_per_class(found.test).tolist() == [3, 3, 3]
    assert len(found.val) == 6


@given(grouped, seeds, st.floats(0.1, 0.6))
def test_a_fraction_is_met_as_nearly_as_groups_allow(
    groups: list[list[int]], seed: int, fraction: float
) -> None:
    """No group left out would bring the classes' shares nearer, and every image is used."""
    listing = listing_of(groups)
    found = chosen(listing, seed, test_fraction=fraction)
    wanted = largest_remainder(listing.images_per_class(np.arange(len(listing))), fraction)
    short = wanted - listing.images_per_class(found.test)
    tested = groups_in(listing, found.test)
    for number, labels in enumerate(groups):
        if f"g{number}" not in tested:
            with_it = short - np.bincount(labels, minlength=3)
            assert np.abs(with_it).sum() >= np.abs(short).sum()
    assert len(found.train) + len(found.val) + len(found.test) == len(listing)


@given(grouped, seeds)
def test_groups_are_drawn_by_their_names(groups: list[list[int]], seed: int) -> None:
    """The order of the rows does not matter."""
    listing = listing_of(groups)
    assert listing.groups is not None
    back = np.arange(len(listing))[::-1]
    turned = replace(
        listing,
        labels=listing.labels[back],
        groups=listing.groups[::-1],
        ids=listing.ids[::-1],
    )
    one = groups_in(listing, chosen(listing, seed).test)
    assert groups_in(turned, chosen(turned, seed).test) == one


def test_a_given_split_that_parts_a_group_is_refused() -> None:
    """The group and its sets are named."""
    given_sets = ("train", "train", "train", "test", "test", "val", "val")
    listing = made_up(
        [0, 1, 0, 0, 1, 0, 1], groups=("a", "b", "c", "c", "d", "e", "f"), given=given_sets
    )
    with pytest.raises(DataError, match="group c is in the given sets train and test"):
        chosen(listing, 1, split="given")


def test_blocks_and_groups_do_not_go_together() -> None:
    """Neighbourhood says nothing once there are groups."""
    with pytest.raises(DataError, match="blocks does not know groups"):
        chosen(listing_of([[0, 1]] * 20), 1, split="blocks")
