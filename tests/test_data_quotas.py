"""How many of each class: totals divided fairly and nested, long tails with the right shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import DataError
from jobs.data.keyed import Indices
from jobs.data.quotas import long_tail, proportional, tail_ranks
from jobs.data.subset import subset
from jobs.params.classes import ImbalanceParams
from jobs.params.target import TargetParams
from tests.listings import digests_for, made_up

counts_of_classes = st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any)


@given(counts_of_classes, st.data())
def test_totals_are_exact_and_nested(counts: list[int], data: st.DataObject) -> None:
    """All seats are given, none too many to a class, and a larger total takes none away."""
    have = np.array(counts)
    larger = data.draw(st.integers(0, sum(counts)))
    smaller = data.draw(st.integers(0, larger))
    small, large = proportional(have, smaller), proportional(have, larger)
    assert small.sum() == smaller and large.sum() == larger
    assert (small <= large).all() and (large <= have).all()


@given(counts_of_classes, st.data())
def test_webster(counts: list[int], data: st.DataObject) -> None:
    """The classes' seats are those of Webster's method given out one at a time."""
    total = data.draw(st.integers(0, min(sum(counts), 40)))
    seats = [0] * len(counts)
    for _ in range(total):
        turns = [(s + 0.5) / n if n > s else np.inf for s, n in zip(seats, counts, strict=True)]
        seats[int(np.argmin(turns))] += 1
    assert proportional(np.array(counts), total).tolist() == seats


@pytest.mark.parametrize(("ratio", "num_classes"), [(1, 4), (10, 5), (50, 10), (100, 2)])
def test_a_long_tail_that_holds_its_largest(ratio: float, num_classes: int) -> None:
    """n_k = n_max * ratio^(-k / (K - 1)), to the nearest whole number."""
    wanted = ImbalanceParams(ratio=ratio, hold="max")
    ranks = tail_ranks(tuple(map(str, range(num_classes))), 3)
    found = long_tail(wanted, 200, 0, ranks)
    exact = [200 * ratio ** (-k / (num_classes - 1)) for k in range(num_classes)]
    assert sorted(found.tolist(), reverse=True) == [round(n) for n in exact]
    assert found[np.argsort(ranks)].tolist() == sorted(found.tolist(), reverse=True)


@given(st.floats(1, 200), st.integers(2, 12), st.integers(0, 400))
def test_a_long_tail_that_holds_the_total(ratio: float, num_classes: int, more: int) -> None:
    """The total is exact, each class has some, sizes descend, and one factor rounds the formula's
    shares to all of them that are more than one."""
    total = num_classes + more
    ranks = np.arange(num_classes)
    found = long_tail(ImbalanceParams(ratio=ratio), 0, total, ranks)
    assert found.sum() == total and found.min() >= 1
    assert (np.diff(found) <= 0).all()
    shares = ratio ** (-ranks / (num_classes - 1))
    at_least = ((found - 0.5) / shares)[found > 1].max(initial=0)
    assert at_least <= ((found + 0.5) / shares).min() + 1e-9


@given(st.floats(1, 200), st.integers(2, 12), st.integers(0, 200), st.integers(0, 200))
def test_long_tails_are_nested(ratio: float, num_classes: int, more: int, other: int) -> None:
    """A larger total takes no image from any class."""
    smaller, larger = (num_classes + n for n in sorted([more, other]))
    ranks = np.arange(num_classes)
    found = [long_tail(ImbalanceParams(ratio=ratio), 0, n, ranks) for n in (smaller, larger)]
    assert (found[0] <= found[1]).all()


def test_the_tails_order_is_drawn_by_name() -> None:
    """Other seeds put other classes into the tail; a new class leaves the others' order."""
    names = tuple("abcdefgh")
    orders = [np.argsort(tail_ranks(names, seed)).tolist() for seed in range(5)]
    assert len({tuple(order) for order in orders}) == 5
    with_one_more = [i for i in np.argsort(tail_ranks((*names, "new"), 0)) if i < 8]
    assert with_one_more == orders[0]


LABELS = [0] * 60 + [1] * 40 + [2] * 20


def chosen(seed: int = 1, classes_seed: int = 2, **fields: Any) -> Indices:
    listing = made_up(LABELS)
    wanted = TargetParams(dataset="digits", **fields)
    return subset(listing, digests_for(listing), np.arange(120), wanted, seed, classes_seed)


def per_class(indices: Indices) -> list[int]:
    return np.bincount(np.array(LABELS)[indices], minlength=3).tolist()


@given(st.integers(0, 2**62), st.integers(6, 120), st.integers(6, 120))
def test_totals_are_nested_subsets(seed: int, one: int, other: int) -> None:
    """num_images keeps the classes' proportions, and a smaller number's images are among a
    larger one's."""
    smaller, larger = sorted([one, other])
    small = chosen(seed, num_images=smaller)
    large = chosen(seed, num_images=larger)
    assert set(small.tolist()) <= set(large.tolist())
    assert len(large) == larger
    assert (np.abs(np.array(per_class(large)) - np.array([60, 40, 20]) * larger / 120) <= 1).all()


def test_a_fraction_is_a_total() -> None:
    """train_fraction takes as many images as num_images of that share would."""
    assert chosen(train_fraction=0.3).tolist() == chosen(num_images=36).tolist()


@given(st.integers(0, 2**62), st.sampled_from([1.0, 2.0, 5.0, 9.0]))
def test_imbalance(classes_seed: int, ratio: float) -> None:
    """Each class keeps a prefix of its own order; its size follows from its place in the tail."""
    found = chosen(1, classes_seed, per_class=9, imbalance={"ratio": ratio, "hold": "max"})
    assert set(found.tolist()) <= set(chosen(1, classes_seed, per_class=9).tolist())
    sizes = np.array(per_class(found))
    order = np.argsort(tail_ranks(("c0", "c1", "c2"), classes_seed))
    assert sizes[order].tolist() == [round(9 * ratio ** (-k / 2)) for k in range(3)]
    total = chosen(1, classes_seed, per_class=9, imbalance={"ratio": ratio})
    assert len(total) == 27


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_images": 121}, "num_images: 121 asked for, but there are only 120"),
        ({"num_images": 2}, "leave none for class c"),
        ({"per_class": 20, "imbalance": {"ratio": 100}}, "target.imbalance: .* asked for"),
    ],
)
def test_too_few_images(fields: dict[str, Any], says: str) -> None:
    """What cannot be had is said with the numbers."""
    with pytest.raises(DataError, match=says):
        chosen(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"per_class": 3, "num_images": 9},
        {"num_images": 9, "train_fraction": 0.5},
        {"val_per_class": 3, "val_count": 9},
        {"test_per_class": 3, "test_count": 9},
        {"imbalance": {"ratio": 2}},
        {"num_images": 9, "imbalance": {"ratio": 2, "hold": "max"}},
        {"split": "blocks", "test_count": 9},
        {"multi_label": True},
        {"file": "m.csv"},
        {"folder": "x"},
        {"split": "given"},
        {"classes": {"merge": {"a": ["b"]}, "map": "m.csv"}},
        {"classes": {"only": ["a"], "drop": ["b"]}},
        {"classes": {"merge": {"a": ["x"], "b": ["x"]}}},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    """Two ways to say how many, or parameters of another dataset, are errors."""
    with pytest.raises(ValueError):
        TargetParams.model_validate({"dataset": "digits", **fields})
