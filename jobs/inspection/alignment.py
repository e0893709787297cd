"""Linear CKA: how alike two representations of the same images are, whatever basis they use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.floating]

BLOCK = 1024  # images that are held in float64 at once


def linear_cka(one: Matrix, other: Matrix) -> float:
    """Linear centred kernel alignment of features (N, D) and (N, E) of the same N images.

    With X and Y centred per column, ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F), in 0..1: 1 for
    equal representations up to rotation and one scale, 0 for uncorrelated ones (Kornblith, Norouzi,
    Lee, Hinton: Similarity of neural network representations revisited, ICML 2019, section 3).  NaN
    where one is constant.  Where N is not much larger than D it comes out higher than it would from
    more images, since the estimate is biased.

    Products are summed in float64, a block of images at a time; of N images and D units whichever
    is smaller determines the memory, N^2 or D^2.
    """
    if len(one) != len(other):
        raise ValueError(f"{len(one)} images in one representation, {len(other)} in the other")
    if len(one) < max(one.shape[1], other.shape[1]):
        return _from_images(one, other)
    return _from_units(one, other)


def _from_units(one: Matrix, other: Matrix) -> float:
    """From the products of units (D, E), (D, D) and (E, E)."""
    ours, theirs = one.shape[1], other.shape[1]
    cross, own, their = np.zeros((ours, theirs)), np.zeros((ours, ours)), np.zeros((theirs, theirs))
    for x, y in zip(_centred(one), _centred(other), strict=True):
        cross += x.T @ y
        own += x.T @ x
        their += y.T @ y
    return _ratio(float((cross**2).sum()), float((own**2).sum()), float((their**2).sum()))


def _from_images(one: Matrix, other: Matrix) -> float:
    """The same from the products of images (N, N): ||Y^T X||_F^2 = <X X^T, Y Y^T>."""
    x, y = (np.concatenate(list(_centred(rows))) for rows in (one, other))
    own, their = x @ x.T, y @ y.T
    return _ratio(float((own * their).sum()), float((own**2).sum()), float((their**2).sum()))


def _ratio(cross: float, own: float, their: float) -> float:
    size = np.sqrt(own) * np.sqrt(their)
    return float(cross / size) if size > 0 else float("nan")


def _centred(rows: Matrix) -> Iterator[Floats]:
    """Blocks of `rows` less the mean row, in float64."""
    mean = rows.mean(axis=0, dtype=np.float64)
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK].astype(np.float64) - mean
