"""How far apart two sets of features lie by their means alone.

Both are the measures of Chu et al., Best practices for fine-tuning visual classifiers to new
domains, ECCV Workshops 2016, there of the mean fc7 responses of an AlexNet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def cosine_of_means(first: Floats, second: Floats) -> float:
    """1 - <mu, nu> / (|mu| |nu|) of the mean rows of (m, D) and (n, D); 0 (same direction) to 2.

    The same after any orthogonal transform and any positive scaling of both.  A mean of zero has
    no direction: 0 if both are, else 1.
    """
    mu, nu = first.mean(axis=0), second.mean(axis=0)
    norms = float(np.linalg.norm(mu) * np.linalg.norm(nu))
    if norms == 0:
        return 0.0 if not mu.any() and not nu.any() else 1.0
    # Half the squared distance of the unit vectors: keeps its digits where both are nearly equal.
    between = mu / np.linalg.norm(mu) - nu / np.linalg.norm(nu)
    return float(between @ between) / 2


def distance_of_means(first: Floats, second: Floats) -> float:
    """|mu - nu|, the MMD of a linear kernel, of the mean rows of (m, D) and (n, D).

    In the features' unit.  Its expectation over finite samples of one distribution is above 0;
    :func:`jobs.distances.mmd.mmd2_linear` is the unbiased estimate of its square.
    """
    return float(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)))
