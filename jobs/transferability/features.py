"""How much of features' variation is between classes: H-score and TransRate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

EPSILON = 1e-4  # distortion of the rates, as in the authors' code


def h_score(features: Floats, labels: Labels) -> float:
    """tr(cov(f)^-1 cov(E[f|Y])), from 0 (classes do not differ) to their number less one.

    `features` (N, D), `labels` (N).  Bao et al., An information-theoretic approach to
    transferability in task transfer learning, ICIP 2019, definition 2.  The same after any
    invertible linear map.  Directions without variation are left out (pseudo-inverse); with no
    more images than dimensions, classes always seem to be apart: see the regularised one.
    """
    return float(_between(features, labels)[1].sum())


def h_score_regularised(features: Floats, labels: Labels) -> float:
    """H-score with the covariance shrunk to a multiple of the identity.

    Ibrahim, Ponomareva, Mazumder, Newer is not always better: rethinking transferability metrics,
    their peculiarities, stability and performance, ECML PKDD 2022: tr(cov_a^-1 (1 - a)
    cov(E[f|Y])) with cov_a = (1 - a) cov + a tr(cov) / D I and a by Ledoit and Wolf.  The same
    after orthogonal transforms and scaling.
    """
    variances, shares = _between(features, labels)
    if not len(variances):
        return 0.0
    share = shrinkage(features)
    own = (1 - share) * variances  # along the principal axes, outside of which means do not differ
    return float((own * shares / (own + share * variances.sum() / features.shape[1])).sum())


def shrinkage(features: Floats) -> float:
    """How much a sample covariance (N, D) shrinks towards a multiple of the identity, 0 to 1.

    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices,
    Journal of Multivariate Analysis 88 (2004), lemmas 3.2 to 3.4.
    """
    n, d = features.shape
    centred = features - features.mean(axis=0)
    products = centred @ centred.T if n < d else centred.T @ centred
    mean_variance = float(np.trace(products)) / (n * d)
    squared = float((products**2).sum()) / n**2  # |cov|^2, whichever way the products are
    scatter = squared - d * mean_variance**2
    fourth = float((((centred**2).sum(axis=1)) ** 2).sum())
    noise = (fourth / n - squared) / n
    return 0.0 if scatter <= 0 else float(min(max(noise / scatter, 0.0), 1.0))


def transrate(features: Floats, labels: Labels) -> float:
    """R(Z) - R(Z|Y) in nats: the information that features and labels share, estimated as rates.

    `features` (N, D), `labels` (N).  Huang et al., Frustratingly easy transferability estimation,
    ICML 2022: R(Z) = 1/2 log det(I + Z'Z / (n e)), and R(Z|Y) that of each class weighted by its
    share.  e = 1e-4 as in their code; features are centred and, a choice of ours, scaled to a mean
    squared norm of 1, so that orthogonal transforms and scaling change nothing.
    """
    centred = features - features.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=1).mean())
    scaled = centred / norm if norm > 0 else centred
    rate = _rate(scaled)
    for label in np.unique(labels):
        members = scaled[labels == label]
        rate -= len(members) / len(labels) * _rate(members)
    return rate


def _rate(rows: Floats) -> float:
    n, d = rows.shape
    products = rows @ rows.T if n < d else rows.T @ rows
    return float(np.linalg.slogdet(np.eye(len(products)) + products / (n * EPSILON))[1]) / 2


def _between(features: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Along each principal axis with variation: the variance, and its share between classes.

    From X = U S V' the covariance is V S^2 V' / N; that of the class means, P averaging within
    classes, X' P X / N = V S (U' P U) S V' / N.
    """
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = singular > singular.max(initial=0) * max(features.shape) * np.finfo(np.float64).eps
    left, variances = left[:, kept], singular[kept] ** 2 / len(features)
    shares = np.zeros(len(variances))
    for label in np.unique(labels):
        members = labels == label
        shares += left[members].sum(axis=0) ** 2 / members.sum()
    return variances, shares
