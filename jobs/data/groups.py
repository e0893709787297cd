"""Choosing whole groups: images of one patient, video or scene never part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ftd.seeds import keyed_hash
from jobs.data.keyed import Indices

Counts = npt.NDArray[np.int64]


class Groups:
    """The samples `indices` by group, in an order drawn under `key`.

    `names` (N) are the groups of all samples; `strata` (int64, N) what shall be balanced.
    """

    def __init__(
        self,
        indices: Indices,
        names: Sequence[str],
        strata: npt.NDArray[np.int64],
        num_strata: int,
        *key: str | int,
    ) -> None:
        by_name: dict[str, list[int]] = {}
        for index in indices.tolist():
            by_name.setdefault(names[index], []).append(index)
        ordered = sorted(by_name, key=lambda name: keyed_hash(*key, name))
        self._members = [np.array(by_name[name], np.int64) for name in ordered]
        self._counts = [np.bincount(strata[m], minlength=num_strata) for m in self._members]

    def about(self, wanted: Counts) -> Indices:
        """Whole groups that together hold about `wanted` samples of each stratum: in the order
        drawn, each that brings the numbers nearer to what is wanted."""
        left = wanted.copy()
        taken = []
        for members, counts in zip(self._members, self._counts, strict=True):
            if np.abs(left - counts).sum() < np.abs(left).sum():
                taken.append(members)
                left -= counts
        return _union(taken)

    def at_least(self, wanted: Counts) -> Indices:
        """Whole groups that together hold at least `wanted` samples of each stratum, or all that
        help: in the order drawn, each that has some of what is still short."""
        left = wanted.copy()
        taken = []
        for members, counts in zip(self._members, self._counts, strict=True):
            if (np.minimum(left, counts) > 0).any():
                taken.append(members)
                left -= counts
        return _union(taken)


def _union(parts: list[Indices]) -> Indices:
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
