"""Splits are disjoint, seeded, of the sizes asked for, and blocks keep neighbours together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import DataError
from jobs.data.elpv import elpv_listing
from jobs.data.quotas import largest_remainder
from jobs.data.splits import NUM_BLOCKS, split
from jobs.params.target import TargetParams
from tests.listings import digests_for, made_up


def target(**fields: Any) -> TargetParams:
    return TargetParams(dataset="digits", **fields)


many_labels = st.lists(st.integers(0, 2), min_size=30, max_size=120).map(
    lambda labels: [*[0, 1, 2] * 10, *labels]
)


@given(many_labels, st.integers(0, 2**62), st.sampled_from(["random", "blocks"]))
def test_sets_are_disjoint(labels: list[int], seed: int, method: Any) -> None:
    """No sample is in two sets, and by fractions every sample is in one."""
    listing = made_up(labels)
    found = split(listing, digests_for(listing), target(split=method), seed)
    together = np.concatenate([found.train, found.val, found.test])
    assert sorted(together.tolist()) == list(range(len(labels)))


@given(many_labels, st.integers(0, 2**62))
def test_random_split_keeps_class_shares(labels: list[int], seed: int) -> None:
    """The test set takes its fraction of every class, to within one image."""
    listing = made_up(labels)
    found = split(listing, digests_for(listing), target(split="random"), seed)
    counts = np.bincount(listing.labels)
    assert (np.abs(np.bincount(listing.labels[found.test]) - counts * 0.25) < 1).all()
    assert len(found.test) == round(len(labels) * 0.25)


@given(many_labels, st.integers(0, 2**62))
def test_a_random_split_goes_by_content(labels: list[int], seed: int) -> None:
    """Listing the same images in another order puts each into the same set."""
    listing = made_up(labels)
    digests = digests_for(listing)
    turned = replace(listing, labels=listing.labels[::-1].copy())
    one = split(listing, digests, target(split="random"), seed)
    other = split(turned, digests[::-1].copy(), target(split="random"), seed)
    for name, indices in one.by_name().items():
        mirrored = len(labels) - 1 - other.by_name()[name]
        assert sorted(indices.tolist()) == sorted(mirrored.tolist())


@pytest.mark.parametrize("method", ["random", "blocks"])
@given(many_labels, st.integers(0, 2**62), st.integers(0, 5))
def test_val_per_class(method: Any, labels: list[int], seed: int, wanted: int) -> None:
    """Validation has exactly the number of every class that was asked for."""
    listing = made_up(labels)
    wishes = target(split=method, val_per_class=wanted)
    try:
        found = split(listing, digests_for(listing), wishes, seed)
    except DataError as error:  # blocks may leave too few of a class outside the test
        assert method == "blocks" and ("asked for" in str(error) or "no image" in str(error))
    else:
        assert np.bincount(listing.labels[found.val], minlength=3).tolist() == [wanted] * 3
        assert not set(found.train.tolist()) & set(found.val.tolist())


@given(many_labels, st.integers(0, 2**62))
def test_sets_by_total(labels: list[int], seed: int) -> None:
    """Test and validation have as many images as asked for, in the classes' proportions."""
    listing = made_up(labels)
    found = split(listing, digests_for(listing), target(test_count=12, val_count=6), seed)
    assert len(found.test) == 12 and len(found.val) == 6
    exact = listing.images_per_class(np.arange(len(labels))) * 12 / len(labels)
    assert (np.abs(listing.images_per_class(found.test) - exact) <= 1).all()
    assert len(found.train) == len(labels) - 18


def test_a_total_that_is_not_there() -> None:
    """The error says how many there are."""
    listing = made_up([0, 1] * 10)
    with pytest.raises(DataError, match=r"target.test_count: 21 asked for, .* only 20"):
        split(listing, digests_for(listing), target(test_count=21), 1)


def test_too_few_for_validation() -> None:
    """The error names the class, what was asked for and what there is."""
    listing = made_up([0] * 40 + [1] * 8)
    with pytest.raises(DataError, match=r"val_per_class: 7 asked for, but class c1 has only 6"):
        split(listing, digests_for(listing), target(split="random", val_per_class=7), seed=1)


def test_blocks_are_whole_and_within_a_group() -> None:
    """Each set is a union of whole blocks of neighbours; every group takes part in the test."""
    groups = tuple(["mono"] * 240 + ["poly"] * 360)
    listing = made_up([0, 1] * 300, neighbourhoods=groups)
    found = split(listing, digests_for(listing), target(split="blocks"), seed=4)
    blocks = [
        *np.array_split(np.arange(240), NUM_BLOCKS),
        *np.array_split(np.arange(240, 600), NUM_BLOCKS),
    ]
    for indices in found.by_name().values():
        inside = [np.isin(block, indices).mean() for block in blocks]
        assert set(inside) <= {0.0, 1.0}
    assert len(found.test) == 150 and (found.test < 240).sum() == 60


def test_unused_neighbours_of_validation_do_not_train() -> None:
    """With val_per_class and blocks, a block that validates gives no training image."""
    listing = made_up([0, 1] * 240)
    found = split(listing, digests_for(listing), target(split="blocks", val_per_class=3), seed=2)
    blocks = np.array_split(np.arange(480), NUM_BLOCKS)
    validating = [block for block in blocks if np.isin(block, found.val).any()]
    assert validating and not any(np.isin(block, found.train).any() for block in validating)


def test_a_given_split_is_kept() -> None:
    """The owner's sets are taken as they are; without a val set, one is taken from train."""
    listing = replace(
        made_up([0, 1] * 20), given=tuple(["train"] * 20 + ["val"] * 8 + ["test"] * 12)
    )
    wishes = TargetParams(dataset="folder", folder="x", split="given")
    found = split(listing, digests_for(listing), wishes, seed=1)
    assert found.val.tolist() == list(range(20, 28))
    assert found.test.tolist() == list(range(28, 40))
    without = replace(listing, given=tuple(["train"] * 28 + ["test"] * 12))
    found = split(without, digests_for(without), wishes, seed=1)
    assert len(found.val) == 6 and found.val.max() < 28
    assert found.test.tolist() == list(range(28, 40))


def test_a_set_of_one_class_is_refused() -> None:
    """Two classes can only be told apart where both occur."""
    listing = replace(made_up([0, 1] * 10 + [0] * 8), given=("train",) * 20 + ("test",) * 8)
    wishes = TargetParams(dataset="folder", folder="x", split="given")
    with pytest.raises(DataError, match="the test set has no image of class c1"):
        split(listing, digests_for(listing), wishes, seed=1)


def test_an_empty_class_is_no_obstacle() -> None:
    """A class without any image, among several, neither shifts labels nor stops the run."""
    listing = replace(made_up([0, 2, 3] * 20), class_names=("a", "b", "c", "d"))
    found = split(listing, digests_for(listing), target(split="random"), seed=1)
    assert np.bincount(listing.labels[found.train], minlength=4)[1] == 0


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=20),
    st.floats(0, 0.999),
)
def test_largest_remainder(counts: list[int], fraction: float) -> None:
    """Shares are whole, within one of exact, add up to the rounded total, and never exceed."""
    given_counts = np.array(counts, dtype=np.int64)
    shares = largest_remainder(given_counts, fraction)
    assert (np.abs(shares - given_counts * fraction) <= 1).all()
    assert shares.sum() == round(float((given_counts * fraction).sum()))
    assert (shares <= given_counts).all()


def test_elpv_lists_every_cell() -> None:
    """All 2,624 cells are listed in order, with the published number of each probability."""
    listing = elpv_listing(threshold=0.5, drop_uncertain=False)
    assert len(listing) == 2624 and list(listing.ids) == sorted(listing.ids)
    assert listing.class_names == ("defective", "functional")
    assert np.bincount(listing.labels).tolist() == [56 + 50 + 313 + 402, 588 + 920 + 117 + 178]
    assert listing.neighbourhoods is not None
    assert {name: listing.neighbourhoods.count(name) for name in ("mono", "poly")} == {
        "mono": 1074,
        "poly": 1550,
    }


def test_elpv_threshold_and_uncertain_cells() -> None:
    """A lower threshold calls more cells defective; dropping leaves only the sure ones."""
    lower = elpv_listing(threshold=0.0, drop_uncertain=False)
    assert np.bincount(lower.labels).tolist() == [2624 - 1508, 1508]
    sure = elpv_listing(threshold=0.5, drop_uncertain=True)
    assert np.bincount(sure.labels).tolist() == [715, 1508]


@pytest.mark.parametrize("seed", range(5))
def test_elpv_blocks_serve_the_usual_sizes(seed: int) -> None:
    """Blocks leave a quarter to the test, and enough of both classes to choose from."""
    listing = elpv_listing(threshold=0.5, drop_uncertain=False)
    wishes = TargetParams(dataset="elpv", split="blocks", val_per_class=50)
    found = split(listing, digests_for(listing), wishes, seed)
    assert abs(len(found.test) / len(listing) - 0.25) < 0.01
    assert np.bincount(listing.labels[found.train]).min() >= 100
