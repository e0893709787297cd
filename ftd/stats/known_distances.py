"""Distances of targets that runs measured, those together that can be compared."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftd.stats.subjects import Network, Target

if TYPE_CHECKING:
    from ftd.ledger.evidence import RunFacts


@dataclass(frozen=True)
class Distances:
    """How far targets are from one source for one network, by one measure.

    `by_target` has the mean over runs by the target's key, `names` and `run_ids` likewise.
    """

    network: Network
    source: str
    layer: str
    measure: str  # cosine, mmd, ...
    by_target: Mapping[str, float]
    names: Mapping[str, str]
    run_ids: Mapping[str, tuple[int, ...]]

    def ranked(self) -> list[str]:
        """The targets' keys, the nearest first."""
        return sorted(self.by_target, key=lambda key: self.by_target[key])


def distances(facts: Sequence[RunFacts]) -> list[Distances]:
    """What runs of the job distance measured, those that can be compared together."""
    groups: dict[tuple[str, ...], list[tuple[RunFacts, float]]] = defaultdict(list)
    for one in facts:
        for measure, value in _measured(one):
            groups[(*_group(one), measure)].append((one, value))
    found = []
    for (*_, layer, measure), members in groups.items():
        values: dict[str, list[float]] = defaultdict(list)
        ids: dict[str, list[int]] = defaultdict(list)
        names = {}
        for one, value in members:
            target = Target.of(one.params["target"])
            values[target.key].append(value)
            ids[target.key].append(one.run_id)
            names[target.key] = target.name
        source = members[0][0].params.get("source")
        found.append(
            Distances(
                Network.of(members[0][0]),
                Target.of(source).name if source else "",
                layer,
                measure,
                {key: statistics.fmean(some) for key, some in values.items()},
                names,
                {key: tuple(sorted(some)) for key, some in ids.items()},
            )
        )
    return found


def _measured(one: RunFacts) -> Iterator[tuple[str, float]]:
    for name, value in one.metrics.items():
        split, _, measure = name.partition("/")
        if split == "distance" and not measure.endswith("_std"):
            yield measure, value


def _group(one: RunFacts) -> tuple[str, ...]:
    """What must be equal for distances to be comparable: network, source, features."""
    network, source = Network.of(one), one.params.get("source")
    features = one.params["features"]
    return (
        network.model,
        network.weights,
        Target.of(source).key if source else "",
        json.dumps(features.get("pooling"), sort_keys=True),
        str(features["layer"]),
    )
