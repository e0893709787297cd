"""Maximum mean discrepancy: the distance between the mean embeddings of two samples.

Gretton et al., A kernel two-sample test, JMLR 13 (2012): the unbiased estimate of the square,
equation 3.  It scatters around 0, also below, where both samples have one distribution.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mmd2_linear(first: Floats, second: Floats) -> float:
    """MMD^2 of the kernel <x, y> between the rows of (m, D) and (n, D), m, n >= 2; unbiased."""
    centre = (first.sum(axis=0) + second.sum(axis=0)) / (len(first) + len(second))
    x, y = first - centre, second - centre  # which changes nothing but the rounding
    return _within_linear(x) + _within_linear(y) - 2 * float(x.mean(axis=0) @ y.mean(axis=0))


def mmd2_rbf(first: Floats, second: Floats, bandwidth: float | None = None) -> float:
    """MMD^2 of the kernel exp(-|x - y|^2 / (2 bandwidth^2)), m, n >= 2; unbiased.

    `bandwidth`: in the features' unit; default: the median distance between two rows of both
    samples together (the heuristic of section 8 there).  With that, the same after orthogonal
    transforms and scaling.
    """
    together = np.concatenate([first, second])
    squared = squared_distances(together)
    if bandwidth is None:
        bandwidth = _median_distance(squared)
    if bandwidth == 0:  # most rows are one and the same
        return 0.0 if not squared.any() else _unbiased((squared == 0).astype(float), len(first))
    return _unbiased(np.exp(squared / (-2 * bandwidth**2)), len(first))


def squared_distances(rows: Floats) -> Floats:
    """|x_i - x_j|^2 of all pairs of rows (n, D): (n, n), symmetric, zero on the diagonal."""
    centred = rows - rows.mean(axis=0)
    products = centred @ centred.T
    norms = np.diagonal(products)
    found: Floats = np.maximum(norms[:, None] + norms[None, :] - 2 * products, 0)
    found = (found + found.T) / 2
    np.fill_diagonal(found, 0)
    return found


def _median_distance(squared: Floats) -> float:
    return float(np.median(np.sqrt(squared[np.triu_indices(len(squared), 1)])))


def _within_linear(rows: Floats) -> float:
    """The mean of <x_i, x_j> over i != j."""
    total = rows.sum(axis=0)
    return float((total @ total - (rows * rows).sum()) / (len(rows) * (len(rows) - 1)))


def _unbiased(kernel: Floats, m: int) -> float:
    """Equation 3 from the kernel of all pairs, those of the first sample (m rows) first."""
    n = len(kernel) - m

    def within(block: Floats) -> float:
        return float((block.sum() - np.trace(block)) / (len(block) * (len(block) - 1)))

    between = float(kernel[:m, m:].sum() / (m * n))
    return within(kernel[:m, :m]) + within(kernel[m:, m:]) - 2 * between
