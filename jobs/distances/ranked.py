"""How good a ranking of references is for one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.data.keyed import Indices
from jobs.measure.ranking import Ranking

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ranked:
    """One query's result.

    ``recall``: of what it wants, the share among its nearest k; ``hit``: whether any is, per k.
    ``nearest``: references (int64), those passed over left out.
    """

    average_precision: float
    recall: tuple[float, ...]
    hit: tuple[float, ...]
    nearest: Indices

    @classmethod
    def of(
        cls, distances: Floats, wanted: Booleans, counted: Booleans, at: Sequence[int]
    ) -> Ranked:
        """From the distances (N,) of all references; those not `counted` are not ranked.

        `wanted` (at least one) are the right answers.  Average precision is that of
        :class:`jobs.measure.ranking.Ranking`: at equal distances references count together; recall
        takes them in their order.
        """
        places = np.flatnonzero(counted)
        order = places[np.argsort(distances[places], kind="stable")]
        right = wanted[order]
        found = [int(right[:k].sum()) for k in at]
        return cls(
            Ranking.of(-distances[places], wanted[places]).average_precision,
            tuple(number / int(right.sum()) for number in found),
            tuple(float(number > 0) for number in found),
            order,
        )
