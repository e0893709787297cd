"""Whether probabilities mean what they say: negative log-likelihood, Brier score, ECE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

NUM_BINS = 15


def log_probabilities(logits: npt.NDArray[np.float32]) -> Floats:
    """Log-softmax over the classes, computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def binary_cross_entropy(logits: npt.NDArray[np.float32], labels: Labels) -> float:
    """Mean over samples and classes of -log of the probability (sigmoid) given to what is so.

    `labels` (N, K) holds zeros and ones.
    """
    signed = np.where(labels == 1, 1.0, -1.0) * logits.astype(np.float64)
    return float(np.logaddexp(0, -signed).mean())


def brier(probabilities: Floats, labels: Labels) -> float:
    """Mean squared distance between probabilities (N, K) and the truth, summed over classes: 0..2.

    Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Mean gap between confidence and accuracy over 15 equally wide bins of confidence: 0..1.

    Confidence is the probability of the predicted class; bin b holds (b/15, (b+1)/15].  Guo et al.,
    On calibration of modern neural networks, ICML 2017.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))
