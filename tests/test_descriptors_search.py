"""Distances between descriptors, bounds on them, and the exact search for the nearest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance
from scipy.special import rel_entr

from jobs.data.images import Images
from jobs.data.listing import Listing
from jobs.descriptors import divergence, search
from jobs.descriptors.divergence import (
    Measure,
    as_told,
    comparison,
    distances,
    prepared,
)
from jobs.descriptors.histograms import EPSILON, weights
from jobs.descriptors.samples import Samples
from jobs.descriptors.search import Candidates, Search
from jobs.params.descriptors import BetweenHistograms, BetweenVectors

torch.set_num_threads(1)

BINS = 6
WEIGHTS = weights([2, 3], BINS)
MEASURES = (*get_args(BetweenHistograms), *get_args(BetweenVectors))
Floats = Any


def histograms(rng: np.random.Generator, number: int, positions: int = 40) -> Floats:
    """Shares of `positions` responses in the bins of five filters; many bins are empty."""
    spread = rng.dirichlet(np.full(BINS, 0.3), size=(number, 5))
    return rng.multinomial(positions, spread).reshape(number, 5 * BINS) / positions


def vectors(rng: np.random.Generator, number: int) -> Floats:
    """Features, some of them 0."""
    return np.maximum(rng.normal(size=(number, 30)), 0)


def rows_for(measure: Measure, rng: np.random.Generator, number: int) -> Floats:
    """Rows that `measure` compares."""
    of_vectors = measure in get_args(BetweenVectors)
    return vectors(rng, number) if of_vectors else histograms(rng, number)


def weights_for(measure: Measure) -> Floats:
    """How much their columns count."""
    return np.ones(30) if measure in get_args(BetweenVectors) else WEIGHTS


def by_library(measure: Measure, x: Floats, y: Floats) -> float:
    """The distance of two rows, filter by filter, from scipy."""
    if measure == "l2":
        return float(distance.euclidean(x, y))
    if measure == "cosine":
        return float(distance.cosine(x, y))
    found = 0.0
    filters = zip(x.reshape(5, BINS), y.reshape(5, BINS), [1 / 4] * 2 + [1 / 6] * 3, strict=True)
    for p, q, weight in filters:
        if measure == "kl":
            p, q = p + EPSILON, q + EPSILON
            one = (rel_entr(p, q).sum() + rel_entr(q, p).sum()) / 2
        elif measure == "js":
            one = distance.jensenshannon(p, q) ** 2
        elif measure == "l1":
            one = distance.cityblock(p, q)
        else:
            one = sum((a - b) ** 2 / (a + b) / 2 for a, b in zip(p, q, strict=True) if a + b)
        found += weight * one
    return found


@pytest.mark.parametrize("measure", MEASURES)
def test_distances_are_those_of_the_library(measure: Measure) -> None:
    """Filter by filter, weighted by layer; empty bins included."""
    rng = np.random.default_rng(1)
    one, other = rows_for(measure, rng, 20), rows_for(measure, rng, 20)
    found = as_told(
        measure,
        distances(measure, prepared(measure, one), prepared(measure, other), weights_for(measure)),
    )
    wanted = [by_library(measure, x, y) for x, y in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_distance_is_symmetric_and_depends_on_its_pair_alone(measure: Measure) -> None:
    """Bit for bit the same both ways round and whatever else is computed along; 0 to itself."""
    rng = np.random.default_rng(2)
    one, other = (prepared(measure, rows_for(measure, rng, 9)) for _ in range(2))
    columns = weights_for(measure)
    found = distances(measure, one, other, columns)
    assert np.array_equal(found, distances(measure, other, one, columns))
    alone = [distances(measure, one[:, i : i + 1], other[:, i : i + 1], columns) for i in range(9)]
    assert np.array_equal(found, np.concatenate(alone))
    often = distances(measure, one.repeat(3, 1), other.repeat(3, 1), columns)
    assert np.array_equal(found, often[::3])
    assert np.array_equal(distances(measure, one[:, :1], other, columns)[:1], found[:1])
    assert not distances(measure, one, one, columns).any()


def test_every_layer_counts_the_same() -> None:
    """Exchanging what is in one filter of a layer weighs 1 / (layers x filters)."""
    p, q = np.zeros((1, 30)), np.zeros((1, 30))
    p[0, ::BINS] = 1
    q[0, ::BINS] = 1
    q[0, :2] = 0, 1  # a filter of the layer of two
    assert distances("l1", p[None], q[None], WEIGHTS) == pytest.approx(2 / 4)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    measure=st.sampled_from(MEASURES),
    columns=st.sampled_from([3, 64]),
)
def test_bounds_hold_the_distance(seed: int, measure: Measure, columns: int) -> None:
    """Of all pairs, equal ones among them; where they are no product they are the distance."""
    rng = np.random.default_rng(seed)
    ours = prepared(measure, rows_for(measure, rng, 5))
    theirs = np.concatenate([prepared(measure, rows_for(measure, rng, 6)), ours[:, :2]], 1)
    weights = weights_for(measure)
    exact = np.stack([distances(measure, ours[:, i : i + 1], theirs, weights) for i in range(5)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(divergence, "COLUMNS", columns)
        compared = comparison(measure, weights, "cpu")
        below, above = compared.bounds(
            compared.operand([ours], 5), compared.operand([theirs[:, :4], theirs[:, 4:]], 8)
        )
    lower, upper = below.numpy(), above.numpy()
    assert lower.shape == (5, 8)
    assert (lower <= exact).all() and (exact <= upper).all()
    if measure in divergence.PRODUCTS:
        assert (upper - lower).max() < 1e-2
    else:
        assert np.array_equal(lower, exact) and np.array_equal(upper, exact)


# --- search ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InMemory:
    """Rows without a store."""

    matrix: Floats
    samples: Samples
    weights: Floats
    key: Any = None

    def have(self) -> None:
        pass

    def rows(self, places: Any) -> Floats:
        assert (np.diff(places) >= 0).all(), "they are read in order"
        return self.matrix[places].copy()


def in_memory(measure: Measure, matrix: Floats, seed: int = 0) -> InMemory:
    """Samples with random digests."""
    digests = np.random.default_rng(seed).permutation(len(matrix)).astype(np.uint64)
    labels = np.zeros(len(matrix), np.int64)
    listing = Listing(("a",), tuple(map(str, labels)), labels, bytes, lambda _: None, "")  # type: ignore[arg-type, return-value]
    images = Images(listing, (), 1, digests, digests, digests, {}, 8)
    return InMemory(matrix, Samples(images, np.arange(len(matrix))), weights_for(measure))


def brute_force(measure: Measure, ours: InMemory, theirs: InMemory, k: int) -> Any:
    """Places and distances of the k nearest, straight from the definition."""
    pool, rows = prepared(measure, theirs.matrix), prepared(measure, ours.matrix)
    exact = np.stack(
        [distances(measure, rows[:, i : i + 1], pool, theirs.weights) for i in range(rows.shape[1])]
    )
    digests = np.broadcast_to(theirs.samples.digests, exact.shape)
    order = np.lexsort((digests, exact), axis=1)[:, :k]
    return order, np.take_along_axis(exact, order, 1)


def searched(measure: Measure, ours: InMemory, theirs: InMemory, k: int, width: int) -> Any:
    """What the search finds, whichever of the targets its candidates suffice for."""
    found = Search(measure, ours, theirs, "cpu")
    targets, size = np.arange(len(ours.matrix)), len(theirs.matrix)
    stretches = [range(0, size // 3), range(size // 3, size)]
    several = [found.candidates(targets, one, width, lambda _: None) for one in stretches]
    candidates = Candidates.merged(several, width)
    enough = candidates.suffices(k, size)
    places, distances = found.settled(
        targets[enough], candidates.of(enough), k, theirs.samples.digests, lambda: None
    )
    return enough, places, distances


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    measure=st.sampled_from(MEASURES),
    k=st.integers(1, 12),
    copies=st.integers(0, 20),
    block=st.sampled_from([5, 17, 1024]),
)
def test_the_nearest_are_those_of_brute_force(
    seed: int, measure: Measure, k: int, copies: int, block: int
) -> None:
    """Same places in the same order, equally near ones by digest, whatever the blocks."""
    rng = np.random.default_rng(seed)
    matrix = rows_for(measure, rng, 40)
    matrix[rng.integers(0, 40, copies)] = matrix[rng.integers(0, 40, copies)]
    ours = in_memory(measure, np.concatenate([rows_for(measure, rng, 4), matrix[:3]]))
    theirs = in_memory(measure, matrix, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MOST_ROWS", block)
        patch.setattr(search, "ELEMENTWISE_ROWS", block)
        enough, places, distances = searched(measure, ours, theirs, k, 24)
    wanted, exact = brute_force(measure, ours, theirs, k)
    assert np.array_equal(places, wanted[enough])
    np.testing.assert_allclose(distances, exact[enough], rtol=1e-4, atol=1e-4)
    assert enough.any() or copies


def test_bounds_alone_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows differ by less than float32 tells apart, ranks are still those of float64; with
    bounds taken for distances they would not be."""
    rng = np.random.default_rng(3)
    one = rng.normal(size=30)
    matrix = one + 1e-7 * rng.normal(size=(50, 30))
    ours, theirs = in_memory("l2", one[None]), in_memory("l2", matrix)
    wanted, _ = brute_force("l2", ours, theirs, 10)
    assert np.array_equal(searched("l2", ours, theirs, 10, 50)[1], wanted)
    monkeypatch.setattr(search, "_unclear", lambda one, _k: np.zeros(one.lower.shape, np.bool_))
    assert not np.array_equal(searched("l2", ours, theirs, 10, 50)[1], wanted)


def test_too_few_candidates_are_noticed() -> None:
    """Where more are equally near than there are candidates, nothing is claimed; all are enough."""
    rng = np.random.default_rng(4)
    matrix = histograms(rng, 30)
    matrix[5:20] = matrix[5]
    ours, theirs = in_memory("kl", matrix[5:6]), in_memory("kl", matrix)
    assert not searched("kl", ours, theirs, 3, 10)[0].any()
    assert searched("kl", ours, theirs, 3, 20)[0].all()
    assert searched("kl", ours, theirs, 30, 30)[0].all()


def test_only_what_is_unclear_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far-apart distances are settled by their bounds: few pairs are read again."""
    rng = np.random.default_rng(5)
    ours, theirs = in_memory("l2", vectors(rng, 2)), in_memory("l2", 9 * vectors(rng, 60))
    again = []
    whole = Search._between
    monkeypatch.setattr(
        Search, "_between", lambda self, *pairs: again.append(len(pairs[1])) or whole(self, *pairs)
    )
    assert searched("l2", ours, theirs, 10, 30)[0].all()
    assert sum(again) < 10


def test_wide_rows_are_compared_in_smaller_blocks() -> None:
    """What is in memory at once does not grow with the number of columns."""
    rows = np.ones((2, 30))
    narrow = Search("l2", in_memory("l2", rows), in_memory("l2", rows), "cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "ROWS_BYTES", 30 * 8 * 100)
        wide = Search("l2", in_memory("l2", rows), in_memory("l2", rows), "cpu")
    assert (narrow.block_rows, wide.block_rows) == (1024, 100)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("measure", MEASURES)
def test_a_gpu_finds_the_same(measure: Measure) -> None:
    """Places are the same as on the CPU, also where TensorFloat-32 is allowed."""
    rng = np.random.default_rng(6)
    ours = in_memory(measure, rows_for(measure, rng, 20))
    theirs = in_memory(measure, rows_for(measure, rng, 300))
    targets = np.arange(20)
    found = Search(measure, ours, theirs, "cuda")
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    candidates = found.candidates(targets, range(300), 100, lambda _: None)
    enough = candidates.suffices(20, 300)
    places, _ = found.settled(
        targets[enough], candidates.of(enough), 20, theirs.samples.digests, lambda: None
    )
    assert np.array_equal(places, brute_force(measure, ours, theirs, 20)[0][enough])


def test_candidates_of_parts_are_merged_by_their_lower_bounds() -> None:
    """The least come first, whichever part they are of."""
    one = Candidates(np.array([[0, 1]], np.int32), np.array([[1.0, 4.0]]), np.array([[2.0, 5.0]]))
    other = replace(one, places=np.array([[2, 3]], np.int32), lower=np.array([[0.5, 3.0]]))
    merged = Candidates.merged([one, other], 3)
    assert merged.places.tolist() == [[2, 0, 3]]
    assert merged.lower.tolist() == [[0.5, 1.0, 3.0]]
