"""Orders, subsets and augmentation depend on who a sample is, never on where it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ftd.errors import DataError
from jobs.data.augment import Augmentation, central
from jobs.data.images import sample_digests
from jobs.data.keyed import Bits, keyed_bits, keyed_order, splitmix64
from jobs.data.listing import Listing
from jobs.data.order import BalancedOrder, Order
from jobs.data.subset import subset
from jobs.params.target import TargetParams

MASK = (1 << 64) - 1


def digests_of(numbers: list[int]) -> Bits:
    return np.array(numbers, dtype=np.uint64)


def listing_of_labels(labels: list[int]) -> Listing:
    return Listing(
        class_names=tuple(f"c{label}" for label in range(max(labels) + 1)),
        ids=tuple(map(str, range(len(labels)))),
        labels=np.array(labels, dtype=np.int64),
        content=lambda index: bytes([index]),
        image=lambda content: Image.new("L", (8, 8), content[0]),
        where="made up",
    )


def target(**fields: Any) -> TargetParams:
    return TargetParams(dataset="digits", **fields)


distinct = st.lists(st.integers(0, MASK), min_size=1, max_size=60, unique=True).map(digests_of)
seeds = st.integers(0, 2**63 - 1)


@given(st.lists(st.integers(0, MASK), max_size=20))
def test_splitmix64_is_the_published_function(numbers: list[int]) -> None:
    """The vectorised finaliser equals a plain-integer transcription of the paper's."""

    def plain(value: int) -> int:
        value = (value + 0x9E3779B97F4A7C15) & MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        return value ^ (value >> 31)

    assert splitmix64(digests_of(numbers)).tolist() == [plain(number) for number in numbers]


def test_splitmix64_first_output() -> None:
    """The generator seeded with 0 starts with the value that every implementation gives."""
    assert splitmix64(digests_of([0])).tolist() == [0xE220A8397B1DCDAF]


@given(distinct, seeds, st.data())
def test_a_subsets_order_is_a_subsequence(digests: Bits, seed: int, data: st.DataObject) -> None:
    """Leaving samples out of an epoch leaves the order of the others as it was."""
    kept = data.draw(st.lists(st.booleans(), min_size=len(digests), max_size=len(digests)))
    chosen = digests[np.array(kept)]
    whole = digests[keyed_order(digests, "order", seed, 3)].tolist()
    part = chosen[keyed_order(chosen, "order", seed, 3)].tolist()
    assert part == [digest for digest in whole if digest in set(chosen.tolist())]


@given(distinct, seeds, st.integers(1, 70), st.integers(0, 5))
def test_batches_cut_an_epoch_evenly(digests: Bits, seed: int, size: int, epoch: int) -> None:
    """An epoch's batches are its order, cut into the fewest parts of at most the batch size."""
    order = Order(digests, size, seed)
    first = epoch * order.steps_per_epoch
    batches = [order.batch(first + part) for part in range(order.steps_per_epoch)]
    sizes = [len(batch) for batch in batches]
    assert np.concatenate(batches).tolist() == order.epoch(epoch).tolist()
    assert sorted(order.epoch(epoch).tolist()) == list(range(len(digests)))
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
    assert order.steps_per_epoch == -(-len(digests) // size)


@given(distinct, seeds, st.integers(1, 10), st.integers(0, 100))
def test_any_step_can_be_asked_for(digests: Bits, seed: int, size: int, step: int) -> None:
    """A batch is the same whether or not the steps before it were taken."""
    walked = Order(digests, size, seed)
    for before in range(step):
        walked.batch(before)
    assert walked.batch(step).tolist() == Order(digests, size, seed).batch(step).tolist()


def test_epochs_and_seeds_differ() -> None:
    """Another epoch or another seed gives another order."""
    digests = splitmix64(np.arange(50, dtype=np.uint64))
    orders = [Order(digests, 7, seed).epoch(epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


# --- balanced sampling ------------------------------------------------------------------------

labels_of_some = st.lists(st.integers(0, 3), min_size=2, max_size=50)


def balanced(labels: list[int], batch_size: int = 7, seed: int = 5) -> BalancedOrder:
    """Samples of these classes."""
    digests = keyed_bits(np.arange(len(labels), dtype=np.uint64), "samples")
    return BalancedOrder(digests, batch_size, seed, labels=np.array(labels))


@given(labels_of_some, st.integers(1, 6))
def test_classes_come_equally_often(labels: list[int], num_epochs: int) -> None:
    """An epoch has as many draws as samples; over any number of epochs classes differ by one."""
    order = balanced(labels)
    epochs = [order.epoch(number) for number in range(num_epochs)]
    assert {len(epoch) for epoch in epochs} == {len(labels)}
    drawn = np.concatenate(epochs)
    per_class = np.bincount(np.array(labels)[drawn])[np.unique(labels)]
    assert per_class.max() - per_class.min() <= 1
    per_sample = np.bincount(drawn, minlength=len(labels))
    for label in set(labels):
        of_class = per_sample[np.array(labels) == label]
        assert of_class.max() - of_class.min() <= 1


@given(labels_of_some, st.integers(1, 9), st.integers(0, 40))
def test_any_balanced_step_can_be_asked_for(labels: list[int], size: int, step: int) -> None:
    """Batch and keys of a step are the same whether or not others were asked for before."""
    walked, fresh = balanced(labels, size), balanced(labels, size)
    for before in range(step + 3):
        walked.batch(before)
    assert walked.batch(step).tolist() == fresh.batch(step).tolist()
    digests = fresh.digests[fresh.batch(step)]
    assert walked.keys(step, digests).tolist() == fresh.keys(step, digests).tolist()
    whole = balanced(labels, len(labels)).epoch(fresh.epoch_of(step))
    assert whole[fresh.batch_of(step)].tolist() == fresh.batch(step).tolist()


@given(labels_of_some)
def test_repeats_in_an_epoch_are_told_apart(labels: list[int]) -> None:
    """Keys of an epoch's draws all differ, and a sample's first one is its digest."""
    order = balanced(labels, batch_size=100)
    drawn = order.batch(1)
    keys = order.keys(1, order.digests[drawn])
    assert len(set(keys.tolist())) == len(labels)
    for sample in set(drawn.tolist()):
        assert order.digests[sample] in keys[drawn == sample]


def test_balanced_epochs_and_seeds_differ() -> None:
    """Another epoch or another seed gives another order, mixed over the classes."""
    labels = [0] * 30 + [1] * 10
    orders = [balanced(labels, seed=seed).epoch(epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    changes = np.diff(np.array(labels)[orders[0]]) != 0
    assert changes.sum() > 8


# --- subsets ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=8, max_size=60), seeds, st.data())
def test_subsets_are_nested(labels: list[int], seed: int, data: st.DataObject) -> None:
    """The images of a smaller number per class are among those of a larger one, of each class."""
    labels = [*range(4), *labels]
    listing = listing_of_labels(labels)
    digests = splitmix64(np.arange(len(labels), dtype=np.uint64))
    most = int(np.bincount(labels).min())
    larger = data.draw(st.integers(1, most))
    smaller = data.draw(st.integers(1, larger))
    everyone = np.arange(len(labels))
    small = subset(listing, digests, everyone, target(per_class=smaller), seed, 0)
    large = subset(listing, digests, everyone, target(per_class=larger), seed, 0)
    assert set(small.tolist()) <= set(large.tolist())
    assert np.bincount(listing.labels[small]).tolist() == [smaller] * 4


def test_too_many_per_class_is_refused() -> None:
    """Asking for more images than a class has names the class, what is wanted and what is there."""
    listing = listing_of_labels([0, 0, 0, 1, 1])
    digests = splitmix64(np.arange(5, dtype=np.uint64))
    with pytest.raises(DataError, match=r"per_class: 3 asked for, but class c1 has only 2"):
        subset(listing, digests, np.arange(5), target(per_class=3), 1, 0)


@given(distinct, seeds, st.integers(0, 9))
def test_draws_do_not_depend_on_position(digests: Bits, seed: int, epoch: int) -> None:
    """A sample's views are the same alone, in a batch, and in any order."""
    augmentation = Augmentation(40, 32, flip=True, random_crop=True, seed=seed)
    together = augmentation.views(epoch, digests[::-1].copy())
    for index in range(len(digests)):
        alone = augmentation.views(epoch, digests[index : index + 1])
        place = len(digests) - 1 - index
        assert alone.top[0] == together.top[place]
        assert alone.left[0] == together.left[place]
        assert alone.flipped[0] == together.flipped[place]


@given(distinct, seeds, st.integers(0, 9))
def test_flip_and_crop_do_not_disturb_each_other(digests: Bits, seed: int, epoch: int) -> None:
    """Adding crops changes no flip, and the other way round."""
    both = Augmentation(40, 32, flip=True, random_crop=True, seed=seed).views(epoch, digests)
    flips = Augmentation(40, 32, flip=True, random_crop=False, seed=seed).views(epoch, digests)
    crops = Augmentation(40, 32, flip=False, random_crop=True, seed=seed).views(epoch, digests)
    middle = central(40, 32, len(digests))
    assert (both.flipped == flips.flipped).all() and not crops.flipped.any()
    assert (both.top == crops.top).all() and (both.left == crops.left).all()
    assert (flips.top == middle.top).all() and (flips.left == middle.left).all()


def test_crops_are_uniform_and_inside() -> None:
    """Every place of the crop occurs about equally often; half of the images are mirrored."""
    digests = splitmix64(np.arange(9000, dtype=np.uint64))
    views = Augmentation(34, 32, flip=True, random_crop=True, seed=5).views(0, digests)
    places = np.bincount(views.top * 3 + views.left, minlength=9)
    assert len(places) == 9 and (np.abs(places - 1000) < 150).all()
    assert abs(int(views.flipped.sum()) - 4500) < 250


def test_equal_contents_get_distinct_digests() -> None:
    """Copies of an image are told apart by their occurrence, others keep theirs."""
    contents = np.zeros((5, 32), np.uint8)
    contents[1, 0] = contents[3, 0] = 9
    digests = sample_digests(contents)
    assert len(set(digests.tolist())) == 5
    assert digests[:2].tolist() == sample_digests(contents[:2]).tolist()
    assert keyed_bits(digests, "x").dtype == np.uint64
