"""What fine-tuning changes: weights, BatchNorm, CKA, separability and selectivity by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, ortho_group
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from sklearn.preprocessing import normalize

from jobs.inspection import alignment
from jobs.inspection import selectivity as selective
from jobs.inspection.alignment import linear_cka
from jobs.inspection.displacement import Normalisation, displacement, normalisation_shift
from jobs.inspection.probing import PENALTY, Labelled, probed
from jobs.inspection.selectivity import selectivity
from jobs.inspection.separability import scatter

Floats = npt.NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shape: int) -> Floats:
    """Normal numbers."""
    return np.random.default_rng(seed).normal(size=shape)


def turned(seed: int, size: int) -> Floats:
    """A random orthogonal matrix."""
    found: Floats = ortho_group.rvs(size, random_state=seed)
    return found


# --- weights ----------------------------------------------------------------------------------


def test_a_layers_move_by_hand() -> None:
    """Two filters, one turned by a right angle, and a bias: 3-4-5 triangles."""
    before = {"weight": np.array([[3.0, 0.0], [4.0, 0.0]]), "bias": np.zeros(2)}
    after = {"weight": np.array([[0.0, 3.0], [8.0, 0.0]]), "bias": np.zeros(2)}
    found = displacement(before, after)
    assert found.relative == pytest.approx(np.sqrt(9 + 9 + 16) / 5)
    assert found.drift == pytest.approx(1 - 32 / (5 * np.sqrt(73)))
    assert found.unit_drifts == pytest.approx([1.0, 0.0])


@given(seed=SEEDS, factor=st.floats(0.1, 10))
def test_growing_alone_is_no_drift(seed: int, factor: float) -> None:
    """Scaled weights have moved by the factor less one, and point where they pointed."""
    before = {"weight": drawn(seed, 5, 3, 2, 2), "bias": drawn(seed + 1, 5)}
    found = displacement(before, {name: factor * tensor for name, tensor in before.items()})
    assert found.relative == pytest.approx(abs(factor - 1), abs=1e-12)
    assert found.drift == pytest.approx(0, abs=1e-12)
    assert found.unit_drifts == pytest.approx(np.zeros(5), abs=1e-12)
    opposite = displacement(before, {name: -factor * tensor for name, tensor in before.items()})
    assert opposite.drift == pytest.approx(2) and opposite.unit_drifts == pytest.approx(
        np.full(5, 2)
    )


def test_the_smallest_drift_is_seen() -> None:
    """A step of training far below what 1 - cosine could tell from rounding."""
    before = {"weight": np.array([[1.0, 0.0]])}
    found = displacement(before, {"weight": np.array([[1.0, 1e-10]])})
    assert found.drift == pytest.approx(0.5e-20, rel=1e-3)


def test_weights_that_were_nothing() -> None:
    """A unit that was 0 has not turned if it stays so, and is no multiple of what it becomes."""
    zero = {"weight": np.zeros((2, 2))}
    assert displacement(zero, zero).relative == 0 == displacement(zero, zero).drift
    woken = displacement(zero, {"weight": np.array([[1.0, 0.0], [0.0, 0.0]])})
    assert woken.relative == np.inf and woken.drift == 1
    assert woken.unit_drifts == pytest.approx([1.0, 0.0])


def test_batchnorm_moves_in_stored_deviations() -> None:
    """A mean that moves by two deviations, a variance that grows ninefold, a doubled scale."""
    four = np.full(3, 4.0)
    before = Normalisation(np.zeros(3), four, np.full(3, 0.5), np.zeros(3), eps=0.0)
    after = Normalisation(four, 9 * four, np.ones(3), np.full(3, 0.25), eps=0.0)
    found = normalisation_shift([before], [after])
    assert found is not None
    assert (found.mean, found.deviation, found.scale, found.shift) == pytest.approx((2, 2, 1, 0.5))
    still = normalisation_shift([before, before], [before, before])
    assert still is not None and (still.mean, still.scale) == (0, 0)
    half = normalisation_shift([before, before], [before, after])
    assert half is not None and half.mean == pytest.approx(np.sqrt(2)), "channels count alike"
    assert normalisation_shift([], []) is None


# --- CKA --------------------------------------------------------------------------------------


def by_definition(x: Floats, y: Floats) -> float:
    """HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with centred Gram matrices."""
    centre = np.eye(len(x)) - 1 / len(x)
    own, their = (centre @ z @ z.T @ centre for z in (x, y))
    return float(np.trace(own @ their) / np.sqrt(np.trace(own @ own) * np.trace(their @ their)))


@pytest.mark.parametrize("shape", [(40, 5, 7), (6, 9, 3), (5, 20, 30)])
def test_cka_is_the_normalised_dependence_criterion(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More images than units or fewer, in blocks of any size."""
    num, ours, theirs = shape
    x = drawn(1, num, ours)
    y = 3 + 0.5 * x @ drawn(2, ours, theirs) + drawn(3, num, theirs)
    monkeypatch.setattr(alignment, "BLOCK", 4)
    assert linear_cka(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)


@settings(max_examples=30)
@given(seed=SEEDS, factor=st.floats(1e-3, 1e3), num=st.sampled_from([4, 30]))
def test_cka_ignores_rotation_scale_and_offset(seed: int, factor: float, num: int) -> None:
    """The same in any orthonormal basis, times any factor, around any point, and vice versa."""
    x, y = drawn(seed, num, 6), drawn(seed + 1, num, 4)
    moved = factor * x @ turned(seed, 6) + drawn(seed + 2, 6)
    found = linear_cka(x, y)
    assert linear_cka(moved, y) == pytest.approx(found, rel=1e-9)
    assert linear_cka(y, x) == pytest.approx(found, rel=1e-12)
    assert linear_cka(x, moved) == pytest.approx(1)
    assert 0 <= found <= 1 + 1e-12


def test_cka_sees_other_transforms() -> None:
    """Stretching one direction is a change; so is another order of the images."""
    x = drawn(5, 50, 3)
    assert linear_cka(x, x * [1, 1, 5]) < 0.8
    assert linear_cka(x, x[::-1]) < 0.5


def test_cka_of_large_offsets_and_of_nothing() -> None:
    """Features far from 0 lose no digits; constant ones are like nothing."""
    x = drawn(6, 30, 4)
    assert linear_cka((x + 1e6).astype(np.float64), x) == pytest.approx(1, abs=1e-9)
    assert np.isnan(linear_cka(np.ones((5, 2)), drawn(1, 5, 2)))
    with pytest.raises(ValueError, match="5 images in one representation, 4 in the other"):
        linear_cka(drawn(1, 5, 2), drawn(1, 4, 2))


# --- separability -----------------------------------------------------------------------------


def test_separability_by_hand() -> None:
    """Two classes on a line: means 1 and 5 around 3, each image 1 from its mean."""
    found = scatter(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1]))
    assert (found.within, found.between, found.separability) == (1, 4, 4)
    unequal = scatter(np.array([[0.0], [0.0], [0.0], [4.0]]), np.array([7, 7, 7, 2]))
    assert unequal.within == 0 and unequal.between == 3 and unequal.separability == np.inf
    assert np.isnan(scatter(np.ones((3, 2)), np.array([0, 1, 1])).separability)


@settings(max_examples=30)
@given(seed=SEEDS, factor=st.floats(1e-2, 1e2))
def test_separability_ignores_rotation_scale_offset_and_order(seed: int, factor: float) -> None:
    """And within and between add up to the whole."""
    features = drawn(seed, 40, 5)
    labels = np.random.default_rng(seed).integers(0, 4, 40)
    found = scatter(features, labels)
    whole = ((features - features.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert found.within + found.between == pytest.approx(whole)
    order = np.random.default_rng(seed).permutation(40)
    moved = factor * features @ turned(seed, 5) + drawn(seed + 1, 5)
    again = scatter(moved[order], labels[order]).separability
    assert again == pytest.approx(found.separability, rel=1e-9)


# --- selectivity ------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seed=SEEDS, num_values=st.sampled_from([1, 2, 4, 1000]), num_classes=st.integers(2, 5))
def test_average_precision_is_scikit_learns(seed: int, num_values: int, num_classes: int) -> None:
    """Of every unit and class, however many images it answers to alike."""
    draw = np.random.default_rng(seed)
    activations = draw.integers(0, num_values, (30, 6)).astype(np.float32)
    labels = draw.integers(0, num_classes, 30)
    found = selectivity(activations, labels, num_classes).average_precision
    for label in range(num_classes):
        for unit in range(6):
            if not (labels == label).any():
                assert np.isnan(found[label, unit])
                continue
            wanted = average_precision_score(labels == label, activations[:, unit])
            assert found[label, unit] == pytest.approx(wanted)


def area_by_hand(values: Any, labels: Any, num_classes: int, num_top: int) -> float:
    """Every tied image counts with the share of the tied ones that is taken."""
    found = []
    for r in range(1, num_top + 1):
        threshold = np.sort(values)[::-1][r - 1]
        sure, tied = values > threshold, values == threshold
        weight = sure + tied * (r - sure.sum()) / tied.sum()
        frequency = np.bincount(labels, weight, minlength=num_classes) / r
        found.append(entropy(frequency) / np.log(num_classes))
    return float(np.mean(found))


@settings(max_examples=40)
@given(seed=SEEDS, num_values=st.sampled_from([1, 3, 1000]), num_top=st.integers(1, 25))
def test_the_entropy_of_the_top_labels(seed: int, num_values: int, num_top: int) -> None:
    """As scipy's, with ties counted by their share."""
    draw = np.random.default_rng(seed)
    activations = draw.integers(0, num_values, (20, 5)).astype(np.float32)
    labels = draw.integers(0, 3, 20)
    found = selectivity(activations, labels, 3, num_top).entropy_area
    wanted = [area_by_hand(column, labels, 3, min(num_top, 20)) for column in activations.T]
    assert found == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_the_order_of_images_and_units_does_not_matter(seed: int) -> None:
    """Nor does any monotone change of a unit's activation."""
    draw = np.random.default_rng(seed)
    activations = draw.integers(0, 4, (25, 4)).astype(np.float64)
    labels = draw.integers(0, 3, 25)
    images, units = draw.permutation(25), draw.permutation(4)
    found = selectivity(activations, labels, 3, 10)
    again = selectivity(np.exp(activations)[images][:, units], labels[images], 3, 10)
    np.testing.assert_allclose(again.average_precision, found.average_precision[:, units])
    np.testing.assert_allclose(again.entropy_area, found.entropy_area[units], atol=1e-12)


def test_a_perfect_and_a_dead_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answers to class 1 alone, the other never; in chunks of one unit too."""
    labels = np.array([0, 1, 0, 1, 2, 0])
    activations = np.stack([labels == 1, np.zeros(6)], axis=1).astype(np.float32)
    monkeypatch.setattr(selective, "_MAX_ELEMENTS", 1)
    found = selectivity(activations, labels, 3, num_top=2)
    assert found.best.tolist() == [1.0, 0.5] and found.best_class.tolist() == [1, 0]
    whole = entropy([3, 2, 1]) / np.log(3)
    assert found.entropy_area == pytest.approx([0, whole])


# --- the linear classifier --------------------------------------------------------------------


def test_a_probe_is_ridge_regression_on_unit_features() -> None:
    """Its mean recall is that of scikit-learn's on the same features, each class counting alike."""
    draw = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    train = (drawn(1, 70, 6) + np.eye(6)[labels] * 1.5) * draw.uniform(0.1, 9, (70, 1))
    val = drawn(2, 70, 6) + np.eye(6)[labels] * 1.5
    model = RidgeClassifier(alpha=PENALTY).fit(normalize(train), labels)
    wanted = balanced_accuracy_score(labels, model.predict(normalize(val)))
    assert 0.4 < wanted < 1
    assert probed(Labelled(train, labels), Labelled(val, labels), 3) == pytest.approx(wanted)
    absent = Labelled(val[:60], labels[:60])
    assert probed(Labelled(train, labels), absent, 3) > 0, "a class without images is left out"
