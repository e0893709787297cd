"""Borrowing's parts: who borrows what, hard images, balanced batches, separate BatchNorm."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from torch.nn import functional

from ftd.errors import DataError, InputError
from jobs.borrowing.balance import MOST, BalancedBatches
from jobs.borrowing.hard import Judged, LevelOrder
from jobs.borrowing.joint_step import JointStepper, Pairs
from jobs.borrowing.lending import Borrowed, Lending
from jobs.borrowing.norms import separate
from jobs.borrowing.rounds import cross_fitted, fold_of
from jobs.borrowing.selection import some, some_of_each_class
from jobs.borrowing.source_side import SourceSide
from jobs.data.batches import Batch, Loader
from jobs.data.images import Images
from jobs.data.keyed import Bits, splitmix64
from jobs.data.order import Order
from jobs.growth.reading import Reading
from jobs.params.joint import HardParams
from jobs.params.train import TrainParams
from jobs.records import preprocessing
from jobs.train.loss import Objective
from jobs.train.state import TrainingState
from tests.listings import digests_for, made_up
from tests.networks import network


def digests_of(number: int, seed: int = 0) -> Bits:
    """Distinct digests."""
    return splitmix64(np.arange(number, dtype=np.uint64) + np.uint64(10**9 + 1000 * seed))


def images_of(labels: list[int]) -> Images:
    """Images with these labels, none of which is looked at."""
    listing = made_up(labels)
    digests = digests_for(listing)
    return Images(listing, (), 1, digests, digests, digests, {}, 8)


# --- lending ------------------------------------------------------------------------------------

NEAREST = np.array([[7, 3, 9, 1], [3, 7, 2, 4], [5, 6, 8, 0]], np.int32)


def draws(lending: Lending, place: int, number: int = 400) -> Counter[int]:
    """How often a target image borrows what, over many epochs."""
    places, keys = np.array([place]), digests_of(1, 5)
    return Counter(int(lending.draw(places, keys, epoch)[0]) for epoch in range(number))


def test_each_image_borrows_of_its_own_neighbours_uniformly() -> None:
    """The first K_i of its row, each as often as the others."""
    lending = Lending.to_neighbours(NEAREST, np.array([2, 4, 1]), seed=3)
    assert lending.rows.tolist() == [2, 3, 4, 5, 7]
    for place, expected in enumerate(({7, 3}, {3, 7, 2, 4}, {5})):
        found = draws(lending, place)
        assert set(found) == expected
        assert min(found.values()) > 0.7 * 400 / len(expected)


def test_anyone_borrows_any_of_the_subset() -> None:
    """All target images draw from the same rows."""
    lending = Lending.to_anyone(np.array([4, 2, 8]), 3, seed=3)
    assert lending.rows.tolist() == [2, 4, 8]
    assert all(set(draws(lending, place)) == {2, 4, 8} for place in range(3))


def test_a_draw_belongs_to_the_image_and_the_epoch() -> None:
    """Neither the numbers of others nor the batch's makeup matter; another seed does."""
    keys = digests_of(3, 7)
    one = Lending.to_neighbours(NEAREST, np.array([4, 4, 4]), seed=3)
    fewer = Lending.to_neighbours(NEAREST, np.array([1, 4, 2]), seed=3)
    other = Lending.to_neighbours(NEAREST, np.array([4, 4, 4]), seed=4)
    places = np.arange(3)
    alone = [int(one.draw(places[1:2], keys[1:2], epoch)[0]) for epoch in range(50)]
    assert alone == [int(one.draw(places, keys, epoch)[1]) for epoch in range(50)]
    assert alone == [int(fewer.draw(places, keys, epoch)[1]) for epoch in range(50)]
    assert alone != [int(other.draw(places, keys, epoch)[1]) for epoch in range(50)]


def test_rare_classes_are_not_borrowed() -> None:
    """Only classes with enough selected images stay; who is left with none borrows any of them."""
    labels = np.array([0, 1, 2, 0, 2, 3, 3, 0, 3, 1])
    lending = Lending.to_neighbours(NEAREST, np.array([3, 2, 3]), seed=3)
    assert lending.rows.tolist() == [3, 5, 6, 7, 8, 9]
    left = lending.without_rare(labels, 3)
    assert left.rows.tolist() == [5, 6, 8], "only class 3 is there three times"
    assert left.numbers.tolist() == [3, 3, 3], "the first two borrow what the third has"
    assert [set(draws(left, place)) for place in range(3)] == [{5, 6, 8}] * 3
    two = lending.without_rare(labels, 2)
    assert [set(draws(two, place)) for place in range(3)] == [{7, 3}, {3, 7}, {5, 6, 8}]
    with pytest.raises(DataError, match="no class of the pool has 4"):
        lending.without_rare(labels, 4)


def test_what_two_borrow_looks_different_to_each() -> None:
    """Keys of borrowed images depend on who borrows; repeats of an image borrow anew."""
    digests = digests_of(6)
    order = Order(digests, 3, seed=1)
    drawn = Borrowed(order, digests, Lending.to_anyone(np.array([0]), 6, seed=1))
    batches = [drawn.keys(step, digests_of(1, 9)[[0, 0, 0]]) for step in range(2)]
    assert len({key for batch in batches for key in batch.tolist()}) == 6
    assert drawn.epoch_of(3) == 1 and drawn.batch(0).tolist() == [0, 0, 0]


def test_random_subsets_are_nested_and_balanced_ones_even() -> None:
    """A smaller number is among a larger one; classes have equally many as far as there are."""
    labels = [0] * 30 + [1] * 4 + [2] * 10
    pool = images_of(labels)
    rows = np.arange(44)
    few, more = some(pool, rows, 7, 3), some(pool, rows, 20, 3)
    assert set(few) < set(more) and len(set(more)) == 20
    assert set(some(pool, rows, 7, 4)) != set(few)
    even = some_of_each_class(pool, rows, 18, 3)
    assert pool.listing.images_per_class(even).tolist() == [7, 4, 7]
    assert set(some_of_each_class(pool, rows, 9, 3)) < set(even)


# --- hard images --------------------------------------------------------------------------------


def hard(**fields: Any) -> HardParams:
    """Parameters of the rounds."""
    return HardParams(**{"every_steps": 10, **fields})


def test_wrong_and_uncertain_images_rise() -> None:
    """By four and two levels, as far as the cap; entropies are scipy's."""
    logits = np.log(np.array([[0.98, 0.01, 0.01], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1]]))
    labels = np.array([0, 0, 0])
    judged = Judged.of(logits, labels, hard())
    assert judged.wrong.tolist() == [False, False, True]
    assert judged.uncertain.tolist() == [True, True, False]
    exact = entropy(np.exp(logits), axis=1)
    sharp = Judged.of(logits, labels, hard(delta=float(exact[0]) + 1e-9))
    assert sharp.uncertain.tolist() == [False, True, False]
    median = Judged.of(logits, labels, hard(delta="median"))
    assert median.uncertain.tolist() == [False, bool(exact[1] >= np.median(exact)), False]
    levels = np.array([1, 1, 7])
    assert sharp.raised(levels, hard()).tolist() == [1, 3, 10]
    assert sharp.raised(levels, hard(wrong=1, uncertain=5, cap=8)).tolist() == [1, 6, 8]


def test_what_is_not_finite_is_wrong() -> None:
    """A network that overflows knows nothing."""
    judged = Judged.of(np.array([[np.inf, 0], [np.nan, 1], [9, 0]]), np.zeros(3, np.int64), hard())
    assert judged.wrong.tolist() == [True, True, False]


def test_rounds_come_at_ends_of_epochs() -> None:
    """Every so many steps, rounded up to epochs; none at the end of training."""
    assert hard(every_steps=10, rounds=3).ends(4, 100) == (12, 24, 36)
    assert hard(every_steps=12, rounds=9).ends(4, 36) == (12, 24)
    with pytest.raises(InputError, match="first round is to come after step 12"):
        hard(every_steps=10).ends(4, 12)


@given(
    levels=st.lists(st.integers(1, 6), min_size=2, max_size=12),
    since=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_images_are_drawn_as_often_as_their_level_says(
    levels: list[int], since: int, seed: int
) -> None:
    """After each pass through the list everybody was drawn level times; epochs stay as long."""
    number, total = len(levels), sum(levels)
    order = LevelOrder(
        digests_of(number), 5, seed, standing=lambda: (np.array(levels, np.int64), since)
    )
    drawn = np.concatenate([order.epoch(since + epoch) for epoch in range(total)])
    assert len(drawn) == number * total
    for last in range(total, len(drawn) + 1, total):
        counts = np.bincount(drawn[last - total : last], minlength=number)
        assert counts.tolist() == levels
    for step in range(order.steps_per_epoch * (since + 2)):
        positions = order.batch(step)
        keys = order.keys(step, order.digests[positions])
        assert len({*keys.tolist()}) == len(keys), "a repeat looks different"


def test_without_hard_images_the_order_is_the_plain_one() -> None:
    """All at level 1: byte for byte."""
    digests = digests_of(9)
    order = LevelOrder(digests, 4, 2, standing=lambda: (np.ones(9, np.int64), 0))
    plain = Order(digests, 4, 2)
    for step in range(6):
        positions = plain.batch(step)
        assert order.batch(step).tolist() == positions.tolist()
        assert (order.keys(step, digests[positions]) == digests[positions]).all()


def test_cross_fitting_is_that_of_sklearn() -> None:
    """Each image is predicted by a classifier that has not seen it."""
    draw = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), 10)
    features = draw.normal(size=(30, 6)) + 2 * np.eye(3, 6)[labels]
    folds = np.arange(30) % 4
    found = cross_fitted(features, labels, folds, 3, lambda: None)
    expected = np.empty((30, 3))
    for fold in range(4):
        own = folds == fold
        centre = features[~own].mean(0)
        size = (features[~own] - centre).std()
        model = LogisticRegression(C=1.0, tol=1e-6, max_iter=5000)
        model.fit((features[~own] - centre) / size, labels[~own])
        expected[own] = model.predict_proba((features[own] - centre) / size)
    shares = np.exp(found - found.max(1, keepdims=True))
    assert shares / shares.sum(1, keepdims=True) == pytest.approx(expected, abs=1e-2)
    rough = cross_val_predict(LogisticRegression(), features, labels, cv=PredefinedSplit(folds))
    assert (found.argmax(1) == rough).mean() > 0.9
    assert np.isnan(cross_fitted(features * np.inf, labels, folds, 3, lambda: None)).all()


def test_folds_are_even_within_classes() -> None:
    """Each class is spread over all folds, by content."""
    pool = images_of([0] * 8 + [1] * 4)
    loader = Loader(pool, 8, preprocessing("mini8"), "cpu")
    train = np.arange(12)
    folds = fold_of(loader, train, 4, seed=1)
    assert np.bincount(folds[:8]).tolist() == [2] * 4 and np.bincount(folds[8:]).tolist() == [1] * 4
    turned = fold_of(loader, train[::-1].copy(), 4, seed=1)
    assert (turned[::-1] == folds).all()
    assert (fold_of(loader, train, 4, seed=2) != folds).any()


# --- balanced batches ---------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 8), min_size=6, max_size=40),
    size=st.integers(4, 12),
    step=st.integers(0, 9),
)
def test_extra_images_make_room_for_absent_classes(labels: list[int], size: int, step: int) -> None:
    """What is more than twice in a batch is replaced as long as a class is absent; nothing else."""
    own, digests = np.array(labels, np.int64), digests_of(len(labels))
    plain = Order(digests, size, seed=1)
    order = BalancedBatches(digests, size, 1, plain=plain, labels=own)
    before, after = plain.batch(step), order.batch(step)
    assert len(after) == len(before) and (before == plain.batch(step)).all()
    counts, was = Counter(own[after].tolist()), Counter(own[before].tolist())
    absent = set(labels) - set(was)
    extras = sum(max(number - MOST, 0) for number in was.values())
    room = sum(min(labels.count(label), MOST) for label in absent)
    replaced = int((before != after).sum())
    assert replaced == min(extras, room)
    assert all(counts[label] <= MOST for label in absent)
    assert all(counts[label] >= min(was[label], MOST) for label in was)
    came = own[after[before != after]].tolist()
    assert set(came) <= absent and len({*after[before != after].tolist()}) == replaced
    assert len(set(came)) == min(replaced, len(absent)), "every absent class has its turn"
    keys = order.keys(step, digests[after])
    assert (keys[before == after] == digests[after[before == after]]).all()
    assert not set(keys[before != after].tolist()) & set(digests.tolist())


def test_balancing_is_another_one_at_each_step() -> None:
    """Classes and images that come in are drawn by step and seed."""
    labels = np.array([0] * 6 + [1, 1, 1, 2, 2, 2, 3, 3, 3])
    digests = digests_of(15)

    def coming(seed: int) -> list[list[int]]:
        plain = Order(digests[:6], 6, seed=1)
        order = BalancedBatches(digests, 6, seed, plain=plain, labels=labels)
        return [order.batch(step)[MOST:].tolist() for step in range(6)]

    assert coming(1) == coming(1) != coming(2)
    assert len({tuple(some) for some in coming(1)}) > 1


# --- a step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_a_step_follows_the_gradient_of_both_losses(micro_batch_size: int | None) -> None:
    """(1 - w) CE of the target's head plus w CE of the source's, by hand; whole or in parts."""
    weight, lr = 0.3, 0.05
    draw = torch.Generator().manual_seed(2)
    own = torch.randn(5, 3, 28, 28, generator=draw)
    borrowed = torch.randn(5, 3, 28, 28, generator=draw)
    labels, theirs = torch.tensor([0, 2, 1, 1, 0]), torch.tensor([4, 1, 4, 2, 1])
    classes, keys = torch.tensor([1, 2, 4]), torch.arange(10)
    train = TrainParams(
        steps=1, lr=lr, momentum=0, weight_decay=0, schedule="constant",
        micro_batch_size=micro_batch_size,
    )  # fmt: skip
    moved, still = network("mini8", "R(1-8)"), network("mini8", "R(1-8)")
    side, reading = SourceSide(256, tuple("abcde"), 1, 0), Reading(moved)
    state = TrainingState.initial(moved, train, "cpu", side)
    before = {name: tensor.clone() for name, tensor in side.state_dict().items()}
    pairs = Pairs(
        own, labels, keys[:5], borrowed=Batch(borrowed, theirs, keys[5:]), source_classes=classes
    )
    with reading.listening():
        JointStepper(
            train, Objective(3), 1, 1, "cpu", side=side, reading=reading, source_weight=weight
        ).take(state, pairs)

    still.train()
    still.set_keys(0, keys)
    heard = Reading(still)
    with heard.listening():
        logits = still(torch.cat([own, borrowed]))[:5]
        head = [before[f"source_head.{name}"].requires_grad_() for name in ("weight", "bias")]
        said = functional.linear(heard.latest()[5:], *head)[:, classes]
    numbers = torch.tensor([2, 0, 2, 1, 0])  # of the source's labels among its classes
    source_loss = functional.cross_entropy(said, numbers)
    loss = (1 - weight) * functional.cross_entropy(logits, labels) + weight * source_loss
    parameters = still.trainable()
    gradients = torch.autograd.grad(loss, [*parameters.values(), *head])
    learned = [*moved.trainable().values(), *side.parameters()]
    for start, gradient, end in zip([*parameters.values(), *head], gradients, learned, strict=True):
        assert torch.allclose(end, start - lr * gradient, atol=1e-6)
    assert float(side.sums[0]) == pytest.approx(5 * float(source_loss.detach()), rel=1e-5)
    assert float(side.sums[1]) == int((said.argmax(1) == numbers).sum())


# --- separate BatchNorm -------------------------------------------------------------------------


def test_halves_have_statistics_of_their_own() -> None:
    """The target's half is computed, and enters the running statistics, as if it were alone; the
    borrowed half is normalised by its own batch."""
    target, borrowed = torch.randn(4, 3, 32, 32), 3 + 2 * torch.randn(4, 3, 32, 32)
    alone, both, mixed = (network("resnet18", "R(1-)") for _ in range(3))
    separate(both)
    for net in (alone, both, mixed):
        net.train()
    expected = alone(target)
    found = both(torch.cat([target, borrowed]))
    assert torch.allclose(found[:4], expected, atol=1e-5)
    assert not torch.allclose(mixed(torch.cat([target, borrowed]))[:4], expected, atol=1e-2)
    assert torch.allclose(found[4:], alone(borrowed), atol=1e-4)
    means = [net.state()["bn1.running_mean"] for net in (both, mixed)]
    assert torch.allclose(means[0], 0.1 * first_mean(target, both), atol=1e-5)
    assert not torch.allclose(means[1], means[0], atol=1e-3)
    alone.eval(), both.eval()
    both.load_state(alone.state())
    assert torch.equal(both(target), alone(target)), "evaluation is untouched"


def first_mean(images: torch.Tensor, net: Any) -> torch.Tensor:
    """What the first BatchNorm sees on average."""
    with torch.no_grad():
        return net.module.conv1(images).mean((0, 2, 3))
