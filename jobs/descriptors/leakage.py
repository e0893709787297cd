"""Pictures of a pool that the target is validated or tested on: they must not be borrowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.data.duplicates import twins
from jobs.data.images import Images
from jobs.data.keyed import Indices


@dataclass(frozen=True)
class Leaked:
    """Rows of a pool to leave out (int64, ascending): whatever held-out image they show.

    ``identical`` have the same pixels as one, ``near`` look nearly the same.  ``num_of_test`` of
    them show a test image, ``num_of_val`` a validation image; a row may count for both.
    """

    identical: Indices
    near: Indices
    num_of_test: int
    num_of_val: int

    @property
    def rows(self) -> Indices:
        """All rows to leave out, ascending."""
        return np.union1d(self.identical, self.near)


def leaked(
    target: Images, test_indices: Indices, val_indices: Indices, pool: Images, pool_indices: Indices
) -> Leaked:
    """Which of the rows `pool_indices` of `pool` show a test or validation image of `target`.

    Of images decoded to different sizes, what is identical counts as near.
    """
    pool_indices = np.unique(pool_indices)
    of_test, of_val = (
        twins(pool, pool_indices, held_out, of=target) for held_out in (test_indices, val_indices)
    )
    identical = of_test.identical | of_val.identical
    return Leaked(
        pool_indices[identical],
        pool_indices[(of_test.near | of_val.near) & ~identical],
        int(of_test.any.sum()),
        int(of_val.any.sum()),
    )
