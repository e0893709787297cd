"""Solvers and normalisation against scikit-learn, closed forms and hand-made examples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from ftd.errors import DataError
from ftd.store import Store
from jobs.measure.scoring import Scoring
from jobs.params.solvers import NormaliseParams, SolverParams
from jobs.solvers import knn, logistic, normalise, pca, ridge, svm
from jobs.solvers.choose import candidates, check_choice, choose
from jobs.solvers.linear import NEVER, Fitted, Linear, Pairwise, gram

Floats = npt.NDArray[np.float64]


def clouds(
    num_classes: int, num_dims: int, count: int, seed: int = 0, spread: float = 1.5
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Overlapping classes of `count` samples each around random centres."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), count)
    centres = draw.normal(size=(num_classes, num_dims))
    return centres[labels] + spread * draw.normal(size=(len(labels), num_dims)), labels


def first(fitted: Any) -> Any:
    return next(iter(fitted))


# --- SVM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_dims", "count"), [(5, 40), (60, 10)])
@pytest.mark.parametrize("C", [0.05, 2.0])
def test_svm_one_against_all_is_scikit_learns(num_dims: int, count: int, C: float) -> None:
    """Each class's plane is that of a binary SVC; two classes have one plane."""
    samples, labels = clouds(3, num_dims, count)
    solver = SolverParams(C=C, tolerance=1e-6)
    found = first(svm.fit(samples, labels, 3, solver, 0))
    responses = found.responses(samples)
    for k in range(3):
        oracle = SVC(C=C, kernel="linear", tol=1e-6).fit(samples, labels == k)
        np.testing.assert_allclose(responses[:, k], oracle.decision_function(samples), atol=1e-4)
    assert found.converged and found.scores(responses) is responses
    two = labels < 2
    found = first(svm.fit(samples[two], labels[two], 2, solver, 0))
    oracle = SVC(C=C, kernel="linear", tol=1e-6).fit(samples[two], labels[two])
    wanted = oracle.decision_function(samples)
    np.testing.assert_allclose(found.responses(samples), np.stack([-wanted, wanted], 1), atol=1e-4)


def test_svm_of_pairs_votes_as_scikit_learn_does() -> None:
    """One against one gives SVC's decisions of pairs and its classes."""
    samples, labels = clouds(4, 6, 30)
    solver = SolverParams(scheme="ovo", C=1, tolerance=1e-6)
    found = first(svm.fit(samples, labels, 4, solver, 0))
    oracle = SVC(C=1, kernel="linear", tol=1e-6, decision_function_shape="ovo").fit(samples, labels)
    responses = found.responses(samples)
    np.testing.assert_allclose(responses, oracle.decision_function(samples), atol=1e-4)
    oracle.set_params(decision_function_shape="ovr")
    np.testing.assert_allclose(
        found.scores(responses), oracle.decision_function(samples), atol=1e-3
    )


@pytest.mark.parametrize(("num_dims", "count"), [(5, 40), (60, 10)])
def test_squared_hinge_is_liblinears(num_dims: int, count: int) -> None:
    """The squared loss minimises its objective, with more samples than dimensions or fewer."""
    samples, labels = clouds(2, num_dims, count)
    solver = SolverParams(loss="squared_hinge", C=0.5, tolerance=1e-6)
    found = first(svm.fit(samples, labels, 2, solver, 3))
    oracle = LinearSVC(C=0.5, tol=1e-9, dual=True, max_iter=10**6, random_state=1)
    wanted = oracle.fit(samples, labels).decision_function(samples)
    np.testing.assert_allclose(found.responses(samples)[:, 1], wanted, atol=1e-3)


def test_many_samples_are_separated_without_their_inner_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond what fits in memory liblinear minimises the hinge."""
    samples, labels = clouds(2, 5, 60)
    solver = SolverParams(C=0.5, tolerance=1e-6, max_iterations=10**7)
    few = first(svm.fit(samples, labels, 2, solver, 0))
    monkeypatch.setattr(svm, "MOST_DUAL", 10)
    many = first(svm.fit(samples, labels, 2, solver, 0))
    assert abs(few.responses(samples) - many.responses(samples)).max() < 0.05, "but for the offset"
    again = first(svm.fit(samples, labels, 2, solver, 0))
    assert np.array_equal(many.weights, again.weights)


def test_stopping_early_is_recorded() -> None:
    """A classifier that did not reach its tolerance says so."""
    samples, labels = clouds(2, 30, 100)
    for loss in ("hinge", "squared_hinge"):
        solver = SolverParams(loss=loss, C=100, max_iterations=2)  # type: ignore[arg-type]
        assert not first(svm.fit(samples, labels, 2, solver, 0)).converged
    solver = SolverParams(kind="logistic", C=100, max_iterations=1)
    assert not first(logistic.fit(samples, labels, 2, solver)).converged


# --- ridge, logistic, neighbours ------------------------------------------------------------------


@pytest.mark.parametrize(("num_dims", "count"), [(6, 30), (70, 7)])
def test_ridge_is_scikit_learns_at_every_penalty(num_dims: int, count: int) -> None:
    """One decomposition serves all penalties, with more samples than dimensions or fewer."""
    samples, labels = clouds(3, num_dims, count)
    penalties = (100.0, 1.0, 0.01)
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    for penalty, found in zip(penalties, ridge.fit(samples, labels, 3, penalties), strict=True):
        oracle = Ridge(alpha=penalty).fit(samples, targets)
        np.testing.assert_allclose(found.responses(samples), oracle.predict(samples), atol=1e-7)
        np.testing.assert_allclose(found.weights, oracle.coef_, atol=1e-7)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logistic_regression_is_scikit_learns(num_classes: int) -> None:
    """Scores are logits: their softmax are the model's probabilities."""
    samples, labels = clouds(num_classes, 6, 40)
    solver = SolverParams(kind="logistic", C=0.7, tolerance=1e-8)
    scores = first(logistic.fit(samples, labels, num_classes, solver)).responses(samples)
    powers = np.exp(scores - scores.max(1, keepdims=True))
    oracle = LogisticRegression(C=0.7, tol=1e-8, max_iter=10**5).fit(samples, labels)
    np.testing.assert_allclose(
        powers / powers.sum(1, keepdims=True), oracle.predict_proba(samples), atol=1e-5
    )


@pytest.mark.parametrize("k", [1, 4, 500])
def test_neighbours_are_scikit_learns(k: int) -> None:
    """Shares of votes equal the probabilities of KNeighborsClassifier; k may exceed the samples."""
    samples, labels = clouds(3, 5, 30)
    tests, _ = clouds(3, 5, 20, seed=1)
    found = first(knn.fit(samples, labels, 3, (float(k),)))
    oracle = KNeighborsClassifier(min(k, len(samples)), algorithm="brute").fit(samples, labels)
    shares = found.responses(tests)
    np.testing.assert_allclose(shares, oracle.predict_proba(tests), atol=1e-12)
    scores = found.scores(shares)
    assert np.isfinite(scores).all()
    assert (scores.argmax(1) == shares.argmax(1)).all()


@settings(max_examples=60)
@given(
    rows=st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=1, max_size=6),
    most=st.integers(0, 9),
)
def test_the_least_are_those_of_a_stable_sort(rows: list[list[int]], most: int) -> None:
    """Ties at the last place included, the first of equal ones counts."""
    values = np.array(rows, np.float64)
    expected = np.argsort(values, axis=1, kind="stable")[:, :most]
    assert np.array_equal(knn.least(values, most), expected)


@pytest.mark.parametrize("kind", ["svm", "ridge", "logistic", "knn"])
def test_several_labels_per_image(kind: str) -> None:
    """Each class is learned by itself: as if it were the only one."""
    samples, labels = clouds(4, 6, 25)
    several = np.stack([labels % 2, labels // 2, np.zeros_like(labels)], 1)
    solver = SolverParams(kind=kind, C=1, penalty=1, k=5, tolerance=1e-6)  # type: ignore[arg-type]
    found = first(candidates(samples, several, 3, solver, 0))
    scores = found.scores(found.responses(samples))
    assert scores.shape == (100, 3) and np.isfinite(scores).all()
    for k in (0, 1):
        alone = first(candidates(samples, several[:, k], 2, solver, 0))
        odds = alone.scores(alone.responses(samples))
        assert (np.argsort(odds[:, 1] - odds[:, 0]) == np.argsort(scores[:, k])).mean() > 0.9
        assert ((scores[:, k] > 0) == several[:, k]).mean() > 0.7
    assert (scores[:, 2] < 0).all(), "nobody has the last label"


@pytest.mark.parametrize("kind", ["svm", "ridge", "logistic", "knn"])
def test_a_class_without_samples_is_never_named(kind: str) -> None:
    """Nothing is learned of it, and the others are told apart as without it."""
    samples, labels = clouds(2, 6, 25)
    solver = SolverParams(kind=kind, C=1, penalty=1, k=5)  # type: ignore[arg-type]
    found = first(candidates(samples, labels * 2, 3, solver, 0))
    scores = found.scores(found.responses(samples))
    assert not (scores.argmax(1) == 1).any()
    two = first(candidates(samples, labels, 2, solver, 0))
    same = two.scores(two.responses(samples)).argmax(1) * 2 == scores.argmax(1)
    assert same.mean() > 0.95


def test_votes_by_hand() -> None:
    """Three classes, each winning one pair, are told apart by the size of the responses."""
    votes = Pairwise(np.zeros((3, 2)), np.zeros(3), 3)
    found = votes.scores(np.array([[2.0, -1.0, 0.5], [1.0, 1.0, -1.0]]))
    assert (
        found[0].argmax() == 0 and (np.round(found[0]) == 1).all()
    )  # 0 beats 1, 2 beats 0, 1 beats 2
    assert found[1].argmax() == 0 and found[1].argmin() == 1


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 30))
def test_inner_products_do_not_depend_on_how_many_at_once(n: int, d: int, at_once: int) -> None:
    """They are those of float64, whatever the samples are stored as."""
    samples = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    wanted = samples.astype(np.float64) @ samples.astype(np.float64).T
    np.testing.assert_allclose(gram(samples, samples, at_once), wanted, atol=1e-10)


# --- normalisation ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50, 8), (12, 40)])
@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_scikit_learns(shape: tuple[int, int], whiten: bool) -> None:
    """Coordinates equal those of PCA but for signs, with more samples than dimensions or fewer."""
    draw = np.random.default_rng(0)
    samples = draw.normal(size=shape) * np.linspace(1, 3, shape[1])
    basis = pca.fit(samples, 6)
    oracle = PCA(6, whiten=whiten, svd_solver="full").fit(samples)
    found = basis.project(samples, 6, whiten=whiten)
    wanted = oracle.transform(samples)
    np.testing.assert_allclose(found, wanted * np.sign((found * wanted).sum(0)), atol=1e-8)
    np.testing.assert_allclose(basis.variances, oracle.explained_variance_)
    np.testing.assert_allclose(basis.project(samples, 3, whiten=whiten), found[:, :3], atol=1e-12)
    if whiten:
        np.testing.assert_allclose(found.var(axis=0, ddof=1), 1)


def test_no_more_components_than_there_are() -> None:
    """Samples on a plane have two components, however many are asked for."""
    draw = np.random.default_rng(0)
    flat = draw.normal(size=(30, 2)) @ draw.normal(size=(2, 9))
    basis = pca.fit(flat, 100)
    assert basis.components.shape == (2, 9)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(2), atol=1e-10)
    assert basis.project(flat, 100, whiten=True).shape == (30, 2)


@settings(max_examples=25)
@given(st.integers(0, 100), st.floats(0.1, 100))
def test_components_follow_rotations_and_scale(seed: int, scale: float) -> None:
    """Turned and scaled samples have the same coordinates, scaled; whitened, the same."""
    draw = np.random.default_rng(seed)
    samples = draw.normal(size=(20, 5)) * [5, 4, 3, 2, 1]
    turn = np.linalg.qr(draw.normal(size=(5, 5)))[0]
    one, other = pca.fit(samples, 3), pca.fit(scale * samples @ turn, 3)
    a = one.project(samples, 3, whiten=False)
    b = other.project(scale * samples @ turn, 3, whiten=False)
    np.testing.assert_allclose(np.abs(b), scale * np.abs(a), rtol=1e-6, atol=1e-6 * scale)
    c = one.project(samples, 3, whiten=True)
    d = other.project(scale * samples @ turn, 3, whiten=True)
    np.testing.assert_allclose(np.abs(c), np.abs(d), rtol=1e-6, atol=1e-6)


def test_steps_by_hand(tmp_path: Path) -> None:
    """Length 1, components, equal variance, length 1 again, signed power: in this order."""
    train = normalise.unit_length(np.random.default_rng(0).normal(size=(40, 6)))
    np.testing.assert_allclose((train**2).sum(1), 1)
    params = NormaliseParams(pca=3, whiten=True, power=2)
    found = normalise.fitted(train, params, Store(tmp_path), {})(train)
    wanted = PCA(3, whiten=True, svd_solver="full").fit_transform(train)
    wanted /= np.sqrt((wanted**2).sum(1, keepdims=True))
    wanted = np.sign(wanted) * wanted**2
    np.testing.assert_allclose(found, wanted * np.sign((found * wanted).sum(0)), atol=1e-8)
    nothing = normalise.fitted(train, NormaliseParams(), Store(tmp_path), {})
    assert nothing(train) is train
    zero = np.zeros((1, 4), np.float32)
    assert (normalise.unit_length(zero) == 0).all() and (
        normalise.signed_power(zero, 0.5) == 0
    ).all()
    assert normalise.signed_power(np.array([-4.0, 9.0]), 0.5).tolist() == [-2, 3]


def test_equal_features_have_no_components(tmp_path: Path) -> None:
    """It is told what is wrong with the images, not that an array is empty."""
    same = np.ones((5, 3))
    with pytest.raises(DataError, match="features of all 5 images are equal"):
        normalise.fitted(same, NormaliseParams(pca=2), Store(tmp_path), {})


def test_a_basis_is_computed_once(tmp_path: Path) -> None:
    """Runs for fewer components share it; other training samples, or numerics, have their own."""
    store = Store(tmp_path)
    train = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)

    def bases(num_dims: int, samples: Any = train, **numerics: str) -> int:
        normalise.fitted(samples, NormaliseParams(pca=num_dims), store, numerics)
        return len([*tmp_path.glob("pca/*/manifest.json")])

    assert [bases(8), bases(5), bases(7), bases(8)] == [1, 1, 1, 1]
    assert bases(9) == 2, "sixteen hold more"
    assert bases(5, train + 1) == 3
    assert bases(5, numpy="9") == 4


# --- the choice -----------------------------------------------------------------------------------


def chosen(
    solver: SolverParams, values: dict[float, list[int]], before: Sequence[float] = ()
) -> tuple[float, bool, int]:
    """What is chosen when candidate c says classes `values[c]`; its edge; how many were tried."""
    labels = np.array([0, 1, 1, 0])
    pauses: list[int] = []

    def fit(solver: SolverParams) -> Any:
        for value in solver.candidates:
            yield Linear(np.full((1, 1), value), np.zeros(1))

    def validate(one: Fitted) -> Floats:
        said = values[float(one.weights[0, 0])]  # type: ignore[attr-defined]
        return np.eye(2)[said]

    found = choose(
        fit, solver, validate, Scoring(2), labels, before, lambda scores: pauses.append(len(scores))
    )
    assert found.fitted.weights == found.value  # type: ignore[attr-defined]
    assert not before or found.on_validation[: len(before)] == tuple(before)
    return found.value, found.on_edge, len(pauses)


def test_the_best_on_validation_is_chosen() -> None:
    """Of equally good ones the simplest; what stands at an edge of the grid says so."""
    solver = SolverParams(C=[0.1, 1, 10], select="val/top1")
    right, wrong, half = [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1]
    assert chosen(solver, {0.1: wrong, 1: right, 10: half}) == (1, False, 3)
    assert chosen(solver, {0.1: half, 1: right, 10: right}) == (1, False, 3)
    assert chosen(solver, {0.1: half, 1: half, 10: right}) == (10, True, 3)
    losing = solver.model_copy(update={"select": "val/nll"})
    assert chosen(losing, {0.1: half, 1: right, 10: wrong}) == (1, False, 3)
    ridges = SolverParams(kind="ridge", penalty=[0.1, 1, 10], select="val/top1")
    assert chosen(ridges, {0.1: right, 1: right, 10: wrong})[0] == 1
    assert chosen(SolverParams(C=3), {}) == (3, False, 0)


def test_a_choice_goes_on_where_it_was_left() -> None:
    """Candidates whose metrics are known are not tried again; one of them may still be chosen."""
    solver = SolverParams(C=[0.1, 1, 10], select="val/top1")
    right, half = [0, 1, 1, 0], [0, 1, 0, 1]
    assert chosen(solver, {10: half}, [0.5, 1.0]) == (1, False, 1)
    assert chosen(solver, {10: right}, [0.5, 0.5]) == (10, True, 1)
    assert chosen(solver, {}, [0.5, 1.0, 1.0]) == (1, False, 0)


def test_a_grid_needs_validation_images() -> None:
    """Without any, or by a metric that the target has not, nothing is chosen."""
    grid = SolverParams(C=[1, 2], select="val/top1")
    none = np.zeros(0, np.int64)
    with pytest.raises(DataError, match=r"no validation images.*solver.C: 1"):
        check_choice(Scoring(2), grid, none)
    check_choice(Scoring(2), SolverParams(C=1), none)
    with pytest.raises(DataError, match="has no val/micro_f1"):
        wrong = grid.model_copy(update={"select": "val/micro_f1"})
        check_choice(Scoring(2), wrong, np.array([0, 1]))


def test_every_candidate_is_fitted_alone() -> None:
    """A grid's classifiers are those of single values, for every kind."""
    samples, labels = clouds(3, 6, 20)
    grids = {"C": [0.1, 5.0], "penalty": [0.1, 5.0], "k": [1, 4]}
    kinds = [
        {"kind": kind, "scheme": scheme, "loss": loss}
        for kind, scheme, loss in itertools.product(
            ("svm", "ridge", "logistic", "knn"), ("ova", "ovo"), ("hinge", "squared_hinge")
        )
        if kind == "svm" or (scheme, loss) == ("ova", "hinge")
    ]
    for raw in kinds:
        solver = SolverParams.model_validate({**raw, **grids})
        for value, one in zip(
            solver.candidates, candidates(samples, labels, 3, solver, 0), strict=True
        ):
            alone = SolverParams.model_validate({**raw, solver.tuned: value})
            other = first(candidates(samples, labels, 3, alone, 0))
            assert np.array_equal(one.responses(samples), other.responses(samples)), raw


def test_nothing_to_separate() -> None:
    """Labels that nobody, or everybody, has give constant answers."""
    samples, _ = clouds(1, 3, 10)
    found = first(svm.fit(samples, np.array([[0, 1]] * 10), 2, SolverParams(C=1), 0))
    assert (found.responses(samples) == [NEVER, -NEVER]).all()
