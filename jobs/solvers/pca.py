"""Principal components of training samples: the directions of largest variance, and the variances.

From the eigenvectors of the covariance matrix, or of the inner products of centred samples where
there are fewer samples than dimensions (Pearson 1901; Sirovich 1987, "snapshots").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.solvers.linear import Floats, Samples, gram

_NOTHING = 1e-10  # of the largest variance: what rounding leaves of no variance


@dataclass(frozen=True)
class Basis:
    """``mean`` (D,), ``components`` (R, D), orthonormal rows, ``variances`` (R,), descending.

    A component's entry of largest magnitude is positive.  All float64.
    """

    mean: Floats
    components: Floats
    variances: Floats

    def project(self, samples: Samples, num_dims: int, *, whiten: bool) -> Floats:
        """The first `num_dims` coordinates of centred samples: (N, min(num_dims, R)) float64.

        `whiten` scales each to variance 1 over the fitted samples.
        """
        components = self.components[:num_dims]
        weights = components / np.sqrt(self.variances[:num_dims, None]) if whiten else components
        return np.asarray(samples.astype(np.float64) @ weights.T - weights @ self.mean)


def fit(samples: Samples, most: int) -> Basis:
    """The first `most` principal components of `samples` (N, D), N > 1.

    Fewer where there are no more: at most N - 1 and D, and none without variance.
    """
    from scipy.linalg import eigh

    mean = samples.mean(axis=0, dtype=np.float64)
    centred = samples.astype(np.float64) - mean
    wide = centred.shape[1] >= len(centred)
    products = gram(centred, centred) if wide else centred.T @ centred
    size = len(products)
    number = min(most, len(centred) - 1, centred.shape[1])
    values, vectors = eigh(products, subset_by_index=(size - number, size - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > _NOTHING * max(values[0], np.finfo(float).tiny)
    values, vectors = values[kept], vectors[:, kept]
    components = (vectors / np.sqrt(values)).T @ centred if wide else vectors.T
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return Basis(mean, components * signs[:, None], values / (len(centred) - 1))
