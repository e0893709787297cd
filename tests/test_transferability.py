"""Transferability scores: other libraries, closed forms, hand examples, invariances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import BayesianRidge
from sklearn.metrics import mutual_info_score

from jobs.transferability.features import h_score, h_score_regularised, shrinkage, transrate
from jobs.transferability.labels import leep, nce
from jobs.transferability.logme import logme

SEEDS = st.integers(0, 1000)


def features(seed: int, num: int = 90, dimension: int = 7, apart: float = 1.0) -> Any:
    """Features of three classes whose means lie `apart`, and labels."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(num) % 3)
    centres = draw.normal(size=(3, dimension)) * apart
    return draw.normal(size=(num, dimension)) + centres[labels] + 0.2, labels


# --- LogME ------------------------------------------------------------------------------------


def test_logme_is_the_largest_evidence() -> None:
    """No alpha and beta that an optimiser finds give more; the evidence is a Gaussian's."""
    found, labels = features(1, num=30, dimension=4)
    best = []
    for label in range(3):
        y = (labels == label).astype(float)

        def negative(logs: Any, y: Any = y) -> float:
            alpha, beta = np.exp(logs)
            covariance = np.eye(30) / beta + found @ found.T / alpha
            return -float(multivariate_normal.logpdf(y, np.zeros(30), covariance))

        best.append(-minimize(negative, [0, 0], method="Nelder-Mead").fun)
    assert logme(found, labels) == pytest.approx(np.mean(best) / 30, abs=1e-5)


def test_logme_is_bayesian_ridges_evidence() -> None:
    """scikit-learn maximises the same evidence."""
    found, labels = features(2)
    none = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0}
    scores = []
    for label in range(3):
        ridge = BayesianRidge(
            **none, fit_intercept=False, compute_score=True, tol=1e-12, max_iter=2000
        )
        scores.append(ridge.fit(found, labels == label).scores_[-1])
    assert logme(found, labels) == pytest.approx(np.mean(scores) / len(labels), abs=1e-6)


def test_logme_of_several_labels_per_image() -> None:
    """Columns of zeros and ones are what one label per image becomes."""
    found, labels = features(3)
    assert logme(found, np.eye(3, dtype=np.int64)[labels]) == logme(found, labels)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (10, 1)])
def test_logme_is_finite(shape: tuple[int, int]) -> None:
    """With more images than dimensions, fewer, and without any variation."""
    found, labels = features(4, *shape)
    assert np.isfinite(logme(found, labels))
    assert np.isfinite(logme(np.zeros(shape), labels))
    assert logme(found, labels) > logme(np.zeros(shape), labels) or shape == (10, 1)


# --- LEEP and NCE -----------------------------------------------------------------------------


def test_leep_by_hand() -> None:
    """Four images, two source classes, two labels."""
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
    labels = np.array([0, 0, 1, 1])
    # P(y|z): sums over the images of a label, over those of a source class
    given = np.array([[1.4 / 1.8, 0.6 / 2.2], [0.4 / 1.8, 1.6 / 2.2]])
    expected = [given[y] @ p for y, p in zip(labels, probabilities, strict=True)]
    assert leep(probabilities, labels) == pytest.approx(np.mean(np.log(expected)))


@given(SEEDS)
@settings(max_examples=20)
def test_nce_is_mutual_information_less_the_entropy_of_labels(seed: int) -> None:
    """-H(Y|Z) = I(Y;Z) - H(Y), and scikit-learn knows I."""
    draw = np.random.default_rng(seed)
    labels, source = draw.integers(0, 4, 50), draw.integers(0, 6, 50)
    shares = np.bincount(labels) / 50
    entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    wanted = mutual_info_score(labels, source) - entropy
    assert nce(source, labels) == pytest.approx(wanted, abs=1e-12)


@given(SEEDS)
@settings(max_examples=20)
def test_leep_of_a_sure_network_is_nce(seed: int) -> None:
    """Where every probability is 0 or 1, both are the same."""
    draw = np.random.default_rng(seed)
    labels, source = draw.integers(0, 3, 40), draw.integers(0, 5, 40)
    assert leep(np.eye(5)[source], labels) == pytest.approx(nce(source, labels), abs=1e-12)


def test_a_network_that_knows_the_target_transfers_perfectly() -> None:
    """Source classes that tell the labels: 0; that tell nothing: the labels' entropy."""
    labels = np.repeat([0, 1, 2], 20)
    assert nce(labels, labels) == leep(np.eye(3)[labels], labels) == 0
    assert nce(np.zeros(60, np.int64), labels) == pytest.approx(-np.log(3))
    assert leep(np.full((60, 4), 0.25), labels) == pytest.approx(-np.log(3))


# --- H-score and TransRate --------------------------------------------------------------------


def test_h_score_is_what_discriminant_analysis_separates() -> None:
    """The sum of squared canonical correlations, from the eigenvalues of scikit-learn's solver."""
    found, labels = features(5)
    analysis = LinearDiscriminantAnalysis(solver="eigen").fit(found, labels)
    projected = analysis.transform(found)
    ratios = []
    for column in projected.T:
        means = np.array([column[labels == k].mean() for k in labels])
        ratios.append(means.var() / column.var())
    assert h_score(found, labels) == pytest.approx(sum(ratios), rel=1e-6)
    centred = found - found.mean(axis=0)
    means = np.stack([centred[labels == k].mean(axis=0) for k in labels])
    wanted = np.trace(np.linalg.pinv(centred.T @ centred) @ means.T @ means)
    assert h_score(found, labels) == pytest.approx(wanted, rel=1e-6)


def test_h_score_by_hand() -> None:
    """One dimension: the share of the variance between classes."""
    found = np.array([[0.0], [2.0], [4.0], [6.0]])
    assert h_score(found, np.array([0, 0, 1, 1])) == pytest.approx(4 / 5)
    assert h_score(np.ones((4, 2)), np.array([0, 0, 1, 1])) == 0
    assert h_score_regularised(np.ones((4, 2)), np.array([0, 0, 1, 1])) == 0


@pytest.mark.parametrize("shape", [(60, 9), (20, 45)])
def test_the_shrinkage_is_ledoit_and_wolfs(shape: tuple[int, int]) -> None:
    """scikit-learn's, with more and with fewer images than dimensions."""
    found, labels = features(6, *shape)
    covariance, share = ledoit_wolf(found)
    assert shrinkage(found) == pytest.approx(share, rel=1e-9)
    centred = found - found.mean(axis=0)
    means = np.stack([centred[labels == k].mean(axis=0) for k in labels])
    between = (1 - share) * means.T @ means / len(found)
    wanted = np.trace(np.linalg.solve(covariance, between))
    assert h_score_regularised(found, labels) == pytest.approx(wanted, rel=1e-6)


def test_transrate_by_hand() -> None:
    """Two classes along two axes: each spreads in one direction, both together in two."""
    found = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    wanted = np.log(1 + 1 / 2e-4) - np.log(1 + 1 / 1e-4) / 2
    assert transrate(found, np.array([0, 0, 1, 1])) == pytest.approx(wanted)
    assert transrate(found, np.array([0, 0, 0, 0])) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(60, 9), (20, 45)])
def test_transrate_is_what_the_formula_says(shape: tuple[int, int]) -> None:
    """Log determinants of covariances, also where there are fewer images than dimensions."""
    found, labels = features(7, *shape)
    scaled = found - found.mean(axis=0)
    scaled /= np.sqrt((scaled**2).sum(axis=1).mean())

    def rate(rows: Any) -> float:
        inner = np.eye(shape[1]) + rows.T @ rows / (len(rows) * 1e-4)
        return float(np.log(np.linalg.eigvalsh(inner)).sum()) / 2

    parts = [scaled[labels == k] for k in range(3)]
    wanted = rate(scaled) - sum(len(part) / len(found) * rate(part) for part in parts)
    assert transrate(found, labels) == pytest.approx(wanted, rel=1e-6)


# --- all of them ------------------------------------------------------------------------------

OF_FEATURES = {
    "logme": logme,
    "h_score": h_score,
    "h_score_regularised": h_score_regularised,
    "transrate": transrate,
}


@pytest.mark.parametrize("name", OF_FEATURES)
@given(seed=SEEDS)
@settings(max_examples=5)
def test_turned_scaled_and_permuted_features_score_the_same(name: str, seed: int) -> None:
    """What the features' axes, unit, and images' order are does not matter."""
    found, labels = features(seed)
    draw = np.random.default_rng(seed)
    turned = 3.7 * found @ ortho_group.rvs(7, random_state=seed)
    order = draw.permutation(len(labels))
    score = OF_FEATURES[name]
    assert score(turned[order], labels[order]) == pytest.approx(score(found, labels), rel=1e-6)
    renamed = np.array([2, 0, 1])[labels]
    assert score(found, renamed) == pytest.approx(score(found, labels), rel=1e-9)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_classes_farther_apart_score_higher(name: str) -> None:
    """Labels that features tell transfer more easily than labels that they do not."""
    score = OF_FEATURES[name]
    none, some, much = (score(*features(8, apart=apart)) for apart in (0, 1, 5))
    assert none < some < much
