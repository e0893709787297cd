"""Labels as a table: which sample is of which class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def truth(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.bool_]:
    """Which sample (N) is of which class (K), from class numbers (N,) or zeros and ones (N, K)."""
    if labels.ndim == 2:
        return np.asarray(labels == 1)
    return np.asarray(labels[:, None] == np.arange(num_classes))
