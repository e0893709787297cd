"""LogME: the log of the maximum evidence of a linear model from features to labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MAX_ROUNDS = 1000
TOLERANCE = 1e-9
SMALLEST = 1e-12  # of a residual or of weights: what is below is rounding


def logme(features: Floats, labels: Labels) -> float:
    """Mean over classes and images of the log evidence; the higher, the easier the transfer.

    `features` (N, D); `labels` (N) one class per image, or zeros and ones (N, K).  You et al.,
    LogME: practical assessment of pre-trained models for transfer learning, ICML 2021, algorithm 1
    (each class is a regression on 0 and 1, its alpha and beta those of the largest evidence), by
    the fixed point on singular values of its extended version, JMLR 23 (2022).  The same after
    orthogonal transforms and scaling of the features.
    """
    targets = _one_hot(labels) if labels.ndim == 1 else labels.astype(np.float64)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    squared = singular**2
    kept = squared > squared.max(initial=0) * np.finfo(np.float64).eps * max(features.shape)
    squared, left = squared[kept], left[:, kept]
    if len(squared):  # by its mean square, so that scaling changes nothing, not even where it ends
        squared = squared * (len(features) / squared.sum())
    columns = [_evidence(squared, left.T @ y, float(y @ y), *features.shape) for y in targets.T]
    return float(np.mean(columns)) / len(features)


def _evidence(squared: Floats, projected: Floats, energy: float, n: int, d: int) -> float:
    """The log of the maximum evidence of one regression.

    From the features' `squared` singular values, the targets in their left singular vectors, and
    the targets' sum of squares (equation 2 there; alpha is the precision of the weights, beta that
    of the noise).
    """
    outside = max(energy - float(projected @ projected), 0.0)  # no weights reach it
    alpha = beta = 1.0
    before = -np.inf
    evidence = before
    for _ in range(MAX_ROUNDS):
        ratio = alpha / beta
        gamma = float((squared / (squared + ratio)).sum())
        weights = float((squared * (projected / (squared + ratio)) ** 2).sum())
        residual = float(((projected * ratio / (squared + ratio)) ** 2).sum()) + outside
        evidence = (
            n * np.log(beta)
            + len(squared) * np.log(alpha)  # the other D - r directions cancel below
            - n * np.log(2 * np.pi)
            - beta * residual
            - alpha * weights
            - float(np.log(alpha + beta * squared).sum())
        ) / 2
        if abs(evidence - before) <= TOLERANCE * abs(evidence):
            break
        before = evidence
        alpha = max(gamma, SMALLEST) / max(weights, SMALLEST)
        beta = max(n - gamma, SMALLEST) / max(residual, SMALLEST)
    return float(evidence)


def _one_hot(labels: Labels) -> Floats:
    """Zeros and ones (N, K) of the classes that occur."""
    return np.asarray(labels[:, None] == np.unique(labels)[None, :], np.float64)
