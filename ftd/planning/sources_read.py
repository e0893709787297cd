"""Which factors of a design are of the source: their levels read files of different runs.

A difference between such levels is one between networks, so that these are the units of an
interval.  With one network per level there is no interval, whatever else is repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ftd.outline import Label

Inputs = Mapping[str, Mapping[str, str]]  # name -> {kind, where, fingerprint, ...}


class SourcesRead:
    """What the cells of a design read of other runs."""

    def __init__(self) -> None:
        self._by_level: dict[str, dict[str, set[frozenset[str]]]] = defaultdict(
            lambda: defaultdict(set)
        )
        self._one_net: set[str] = set()  # factors with a level of which a cell has one network

    def note(self, factors: Mapping[str, Label], inputs: Sequence[Inputs]) -> None:
        """One cell: its levels, and its inputs, common to all units or for each of them."""
        read = [_runs(some) for some in inputs]
        for name, label in factors.items():
            self._by_level[name][repr(label)].add(frozenset().union(*read))
            if read[0] and len(set(read)) == 1:
                self._one_net.add(name)

    def of_one_net(self, num_units: int) -> tuple[str, ...]:
        """The factors of the source of which a level is one network for all of several units."""
        return tuple(
            name
            for name, levels in self._by_level.items()
            if num_units > 1
            and name in self._one_net
            and any(read != next(iter(levels.values())) for read in levels.values())
        )


def _runs(inputs: Inputs) -> frozenset[str]:
    """The files of runs that are read, as texts."""
    return frozenset(
        f"{name} {item['fingerprint']} {item.get('file', '')}"
        for name, item in inputs.items()
        if item["kind"] == "run"
    )
