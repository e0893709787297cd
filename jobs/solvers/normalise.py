"""What happens to features before a solver sees them, fitted on training samples.

L2 - PCA - whitening - L2 - signed power (Razavian et al. 2014, "CNN features off-the-shelf"); each
step can be left out.  A basis of principal components is kept in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftd.errors import DataError
from ftd.store import Store
from jobs.params.solvers import NormaliseParams
from jobs.solvers.linear import Samples
from jobs.solvers.pca import Basis, fit

KIND = "pca"
_FILES = ("mean", "components", "variances")


def unit_length(samples: Samples) -> Samples:
    """`samples` (N, D) divided by their L2 norms; zero stays zero."""
    lengths = np.sqrt((samples.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return samples / np.where(lengths > 0, lengths, 1).astype(samples.dtype)


def signed_power(samples: Samples, exponent: float) -> Samples:
    """sign(x) |x|^exponent of each number."""
    return np.sign(samples) * np.abs(samples) ** samples.dtype.type(exponent)


@dataclass(frozen=True)
class Normaliser:
    """The steps after the first L2, ready for any samples (N, D)."""

    params: NormaliseParams
    basis: Basis | None

    def __call__(self, samples: Samples) -> Samples:
        """(N, D) to (N, dimensions that are kept)."""
        params = self.params
        if self.basis is not None and params.pca is not None:
            samples = self.basis.project(samples, params.pca, whiten=params.whiten)
            samples = unit_length(samples) if params.l2 else samples
        return samples if params.power == 1 else signed_power(samples, params.power)


def fitted(
    train: Samples, params: NormaliseParams, store: Store, numerics: Mapping[str, Any]
) -> Normaliser:
    """The normaliser for training samples (N, D), of unit length already if so asked.

    `numerics` (JSON values) is what the digits of a basis depend on besides its samples.
    """
    if params.pca is None:
        return Normaliser(params, None)
    most = 1 << (params.pca - 1).bit_length()  # so that runs for fewer dimensions share it
    most = min(most, *train.shape)
    key = {
        "samples": hashlib.sha256(np.ascontiguousarray(train).data).hexdigest(),
        "shape": [*train.shape, str(train.dtype)],
        "fitted_on": "train",
        "components": most,
        "numerics": dict(numerics),
    }
    folder = store.entry(KIND, key, lambda: _writers(fit(train, most)))
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES]
    basis = Basis(*arrays)
    if not len(basis.components):
        raise DataError(
            f"the features of all {len(train)} images are equal, so there are no principal "
            "components",
            where="normalise.pca",
            fix="Look at images that differ, with another network or layer, or leave pca out",
        )
    return Normaliser(params, basis)


def _writers(basis: Basis) -> Mapping[str, Callable[[Path], None]]:
    def writer(name: str) -> Callable[[Path], None]:
        return lambda path: np.save(path, getattr(basis, name))

    return {f"{name}.npy": writer(name) for name in _FILES}
