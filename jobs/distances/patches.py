"""Comparing images by sub-patches of several sizes.

Razavian et al., CNN features off-the-shelf: an astounding baseline for recognition, CVPR Workshops
2014: level i has i^2 overlapping patches of equal size that cover the image; the distance of a
query to a reference is the mean over the query's patches of that to the nearest of the reference's.
How much patches overlap is not known: ours have 2 / (i + 1) of the image's side, so that neighbours
share half.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from jobs.features.views import View, part

Floats = npt.NDArray[np.float64]
CHUNK = 1 << 22  # distances at a time


def patch_views(num_levels: int) -> tuple[View, ...]:
    """The views of 1 + 4 + ... + num_levels^2 patches; the first is the whole image."""
    found = []
    for level in range(1, num_levels + 1):
        side = 2 / (level + 1)
        for row in range(level):
            for column in range(level):
                name = f"patch {level} {row} {column}"
                found.append(part(name, row * side / 2, column * side / 2, side))
    return tuple(found)


def patch_distances(queries: Floats, references: Floats, chunk: int = CHUNK) -> Iterator[Floats]:
    """D(Q, R) of each query (Q, patches q, D), one after the other, to each reference (N, r, D).

    Float64 (N,).  With one patch each, the Euclidean distance.  About `chunk` are held at a time.
    """
    rows = references.reshape(-1, references.shape[2])
    norms = (rows**2).sum(axis=1)
    num_patches = queries.shape[1]
    step = max(1, chunk // (num_patches * len(rows)))
    for start in range(0, len(queries), step):
        some = queries[start : start + step].reshape(-1, queries.shape[2])
        squared = (some**2).sum(axis=1)[:, None] - 2 * some @ rows.T + norms
        distances = np.sqrt(np.maximum(squared, 0))
        shape = (-1, num_patches, len(references), references.shape[1])
        yield from distances.reshape(shape).min(axis=3).mean(axis=1)
