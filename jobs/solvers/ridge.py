"""Ridge regression on class indicators, all penalties from one decomposition.

Minimises sum |y - W x - b|^2 + penalty |W|^2 with y of +1 for a sample's class and -1 for others
(Hoerl, Kennard 1970); b is free.  With the centred samples X = U S V^T: W = Y^T U S / (S^2 +
penalty) V^T, from the eigenvectors of X^T X or X X^T, whichever is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jobs.measure.truth import truth
from jobs.solvers.linear import Labels, Linear, Samples, gram


def fit(
    samples: Samples, labels: Labels, num_classes: int, penalties: tuple[float, ...]
) -> Iterator[Linear]:
    """A classifier for each penalty, in their order.

    `samples` are (N, D), `labels` class numbers (N,) or zeros and ones (N, K).
    """
    targets = np.where(truth(labels, num_classes), 1.0, -1.0)
    mean, target_mean = samples.mean(axis=0, dtype=np.float64), targets.mean(axis=0)
    centred, targets = samples.astype(np.float64) - mean, targets - target_mean
    wide = centred.shape[1] > len(centred)
    values, vectors = np.linalg.eigh(gram(centred, centred) if wide else centred.T @ centred)
    values = np.maximum(values, 0)
    # with X X^T = U S^2 U^T: W^T = X^T U (S^2 + penalty)^-1 U^T Y; X^T X = V S^2 V^T likewise
    projected = vectors.T @ (targets if wide else centred.T @ targets)
    for penalty in penalties:
        solved = vectors @ (projected / (values + penalty)[:, None])
        weights = (centred.T @ solved if wide else solved).T
        yield Linear(weights, target_mean - weights @ mean)
