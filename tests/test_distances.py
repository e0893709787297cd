"""Distances between sets of features: closed forms, invariances, two halves of one set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine, pdist
from scipy.stats import ortho_group
from sklearn.svm import LinearSVC

from jobs.data.keyed import splitmix64
from jobs.distances.halves import Estimate, Half, apart, chosen, halves, over_halves
from jobs.distances.means import cosine_of_means, distance_of_means
from jobs.distances.mmd import mmd2_linear, mmd2_rbf, squared_distances
from jobs.distances.separation import a_distance, svm_accuracy

SEEDS = st.integers(0, 1000)


def samples(seed: int, num: int = 60, dimension: int = 8, shift: float = 1.0) -> Any:
    """Two samples of Gaussians whose means differ by `shift` in the first coordinate."""
    draw = np.random.default_rng(seed)
    first = draw.normal(size=(num, dimension)) + 0.5
    second = draw.normal(size=(num, dimension)) + 0.5
    second[:, 0] += shift
    return first, second


def digests(count: int, start: int = 0) -> Any:
    return splitmix64(np.arange(start, start + count, dtype=np.uint64))


def one_half(num: int, seed: int = 3) -> Half:
    return halves(digests(num), digests(num, num), seed, 1)[0]


# --- closed forms and oracles -----------------------------------------------------------------


def test_distances_of_means_are_those_of_scipy() -> None:
    """Cosine and Euclidean distance of the mean rows."""
    first, second = samples(1)
    mu, nu = first.mean(axis=0), second.mean(axis=0)
    assert cosine_of_means(first, second) == pytest.approx(cosine(mu, nu), rel=1e-9)
    assert distance_of_means(first, second) == pytest.approx(np.sqrt(((mu - nu) ** 2).sum()))


def test_cosine_by_hand() -> None:
    """The same direction, a right angle, opposite directions; and means without a direction."""
    east, north = np.array([[2.0, 0.0]]), np.array([[0.0, 3.0]])
    assert cosine_of_means(east, 5 * east) == 0
    assert cosine_of_means(east, north) == pytest.approx(1)
    assert cosine_of_means(east, -east) == pytest.approx(2)
    assert cosine_of_means(0 * east, 0 * east) == 0
    assert cosine_of_means(0 * east, east) == 1


@given(SEEDS)
@settings(max_examples=20)
def test_mmd_is_the_sum_over_pairs(seed: int) -> None:
    """Equation 3 of Gretton et al., written out pair by pair."""
    first, second = samples(seed, num=5, dimension=3)
    second = second[:4]
    bandwidth = np.median(pdist(np.concatenate([first, second])))

    def rbf(x: Any, y: Any) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / (2 * bandwidth**2)))

    for kernel, found in ((rbf, mmd2_rbf), (np.dot, mmd2_linear)):
        within = [
            np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
            for a in (first, second)
        ]
        between = np.mean([kernel(x, y) for x in first for y in second])
        wanted = within[0] + within[1] - 2 * between
        assert found(first, second) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_mmd_is_unbiased() -> None:
    """Over many samples of two Gaussians the linear estimate's mean is the means' distance."""
    found = [mmd2_linear(*samples(seed, num=10, dimension=3, shift=0.7)) for seed in range(600)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - 0.49) < 4 * error < 0.2
    same = [mmd2_rbf(*samples(seed, num=10, dimension=3, shift=0)) for seed in range(300)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(len(same)) < 0.05


def test_mmd_of_rows_that_are_all_alike() -> None:
    """A median distance of 0 is no division by it: rows are then alike or not."""
    ones = np.ones((4, 3))
    assert mmd2_rbf(ones, ones) == 0
    mostly = np.concatenate([np.ones((5, 3)), np.zeros((1, 3))])
    assert 0 < mmd2_rbf(np.ones((6, 3)), mostly[::-1] * 1.0) + 1 < 2


def test_squared_distances_are_those_of_scipy() -> None:
    """Also far from the origin, where squares are large."""
    rows = samples(2)[0] + 1e4
    found = squared_distances(rows)[np.triu_indices(len(rows), 1)]
    np.testing.assert_allclose(found, pdist(rows) ** 2, rtol=1e-6)


def test_the_svm_is_scikit_learns() -> None:
    """On features that are scaled as the docstring says, the same accuracy."""
    first, second = samples(4, num=80)
    half = one_half(80)
    train = np.concatenate([first[half.first], second[half.second]])
    scale = np.sqrt(((train - train.mean(axis=0)) ** 2).sum(axis=1).mean())
    labels = [0] * 40 + [1] * 40
    solver = LinearSVC(dual=False, tol=1e-8).fit((train - train.mean(axis=0)) / scale, labels)
    test = np.concatenate([first[half.first_rest], second[half.second_rest]])
    wanted = solver.score((test - train.mean(axis=0)) / scale, labels)
    accuracy, converged = svm_accuracy(first, second, half, seed=1)
    assert converged
    assert accuracy == pytest.approx(wanted, abs=1 / 40)


def test_a_distance_by_hand() -> None:
    """Chance is 0, certainty 2."""
    assert [a_distance(accuracy) for accuracy in (0.5, 0.75, 1.0)] == [0, 1, 2]


# --- invariances ------------------------------------------------------------------------------

MEASURES = {
    "cosine": cosine_of_means,
    "mmd": distance_of_means,
    "mmd_linear": mmd2_linear,
    "mmd_rbf": mmd2_rbf,
    "svm": lambda a, b: svm_accuracy(a, b, one_half(len(a)), seed=1)[0],
}


@pytest.mark.parametrize("name", MEASURES)
@given(seed=SEEDS)
@settings(max_examples=5)
def test_an_orthogonal_transform_changes_nothing(name: str, seed: int) -> None:
    """Turned features are equally far apart."""
    first, second = samples(seed)
    turn = ortho_group.rvs(8, random_state=seed)
    measure = MEASURES[name]
    before, after = measure(first, second), measure(first @ turn, second @ turn)
    assert after == pytest.approx(before, rel=1e-6, abs=0.02 if name == "svm" else 1e-9)


@pytest.mark.parametrize(
    ("name", "power"), [("cosine", 0), ("mmd", 1), ("mmd_linear", 2), ("mmd_rbf", 0), ("svm", 0)]
)
def test_scaling_changes_what_it_must(name: str, power: int) -> None:
    """The unit of the features is that of mmd, its square that of mmd_linear, of no others."""
    first, second = samples(5)
    before, after = MEASURES[name](first, second), MEASURES[name](4 * first, 4 * second)
    assert after == pytest.approx(4**power * before, rel=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_the_order_of_the_sets_does_not_matter(name: str) -> None:
    """The other way round they are as far apart."""
    first, second = samples(6)
    found = [MEASURES[name](*pair) for pair in ((first, second), (second, first))]
    assert found[0] == pytest.approx(found[1], abs=0.05 if name == "svm" else 1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_farther_is_farther(name: str) -> None:
    """Means that differ more are farther apart by every measure."""
    near, far = (MEASURES[name](*samples(7, num=200, shift=shift)) for shift in (0.3, 3))
    assert far > near


# --- halves -----------------------------------------------------------------------------------


def test_two_halves_of_one_set_cannot_be_told_apart() -> None:
    """Distances about 0, accuracy about a half, over repeats."""
    rows = np.random.default_rng(1).normal(size=(400, 16)) + 0.3
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for seed in range(10):
        half = np.random.default_rng(seed).permutation(400)
        for name, measure in MEASURES.items():
            found[name].append(measure(rows[half[:200]], rows[half[200:]]))
    assert np.mean(found["svm"]) == pytest.approx(0.5, abs=0.05)
    assert a_distance(float(np.mean(found["svm"]))) == pytest.approx(0, abs=0.2)
    for name in ("mmd_linear", "mmd_rbf"):
        assert abs(np.mean(found[name])) < 2 * np.std(found[name]) + 1e-3
    assert np.mean(found["cosine"]) < 0.1


@given(st.integers(4, 60), SEEDS)
@settings(max_examples=30)
def test_halves_are_disjoint_and_know_no_position(count: int, seed: int) -> None:
    """A half and its rest make up the set, and belong to the images, not to where they stand."""
    keys = digests(count)
    half = halves(keys, keys[::-1], seed, 2)[1]
    assert sorted([*half.first, *half.first_rest]) == list(range(count))
    assert len(half.first) == count // 2
    assert sorted(keys[half.first]) == sorted(keys[::-1][half.second])
    assert not np.array_equal(half.first, halves(keys, keys, seed, 1)[0].first) or count < 10


def test_a_set_and_itself_become_two_halves() -> None:
    """An image that is on both sides stays on one; the others stay where they are."""
    keys = digests(200)
    first, second = apart(keys, keys, seed=1)
    assert sorted([*first, *second]) == list(range(200))
    assert 70 < len(first) < 130
    first, second = apart(keys[:120], keys[100:], seed=1)
    assert set(range(100)) <= set(first.tolist())
    assert set(range(20, 100)) <= set(second.tolist())
    assert not set(keys[:120][first]) & set(keys[100:][second])


def test_fewer_images_are_among_more() -> None:
    """Chosen images are nested."""
    keys = digests(100)
    assert set(chosen(keys, 10, 1)) < set(chosen(keys, 30, 1))
    assert set(chosen(keys, 10, 1)) != set(chosen(keys, 10, 2))


def test_the_spread_over_halves_is_the_standard_error() -> None:
    """Of a mean it is sd / sqrt(n), which is known."""
    rows = np.random.default_rng(3).normal(size=300)
    drawn = halves(digests(300), digests(300, 300), 1, 400)
    found = over_halves(lambda one, _: float(rows[one].mean()), 300, 300, drawn)
    assert found.value == pytest.approx(rows.mean())
    assert found.std == pytest.approx(rows.std() / np.sqrt(300), rel=0.15)
    assert Estimate.of_repeats([0.25, 0.75]) == Estimate(0.5, pytest.approx(0.5 / np.sqrt(2)))
