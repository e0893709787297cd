"""A map of images on which those with like features lie near one another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.floating]

PERPLEXITY = 30.0
MIN_IMAGES = 8  # fewer make no map


def embedded(features: Matrix, seed: int) -> Floats:
    """Places (N, 2) of N >= `MIN_IMAGES` images with `features` (N, D), by t-SNE.

    Van der Maaten, Hinton: Visualizing data using t-SNE, JMLR 2008; scikit-learn's, from the first
    two principal components, with a perplexity of 30 or a third of the images.  On one thread,
    whose sums have one order.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):
        found = TSNE(
            perplexity=perplexity, init="pca", random_state=seed % (1 << 32), n_jobs=1
        ).fit_transform(features)
    return np.asarray(found, np.float64)
