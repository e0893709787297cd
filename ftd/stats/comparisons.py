"""Freezing and tuning compared: paired differences per setting.

A setting is one network, one target, one number of images per class, and which layers are copied.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftd.outline import Outline
from ftd.stats.observations import Observation, unit
from ftd.stats.reading import chosen, observed
from ftd.stats.spread import Interval, Spread, interval, spread, unit_means
from ftd.stats.subjects import Network, Target

if TYPE_CHECKING:
    from ftd.ledger.evidence import RunFacts
    from ftd.ledger.places import PlaceRow

_TERM = re.compile(r"(FT|F|R)\(([^()]*)\)")


@dataclass(frozen=True)
class Comparison:
    """Tuning less freezing the same layers, by `metric`: paired runs of one setting.

    `difference` is over independent units; `pairs` are run ids (tuned, frozen).  Where `chosen`,
    each side has its own parameters, chosen by validation; else both have the same.
    """

    network: Network
    target: Target
    layers: str  # as tuned: FT(1-7)R(8)
    num_copied: int
    num_per_class: float
    metric: str
    experiment: int
    difference: Spread
    interval: Interval | None
    pairs: tuple[tuple[int, int], ...]
    chosen: bool


def comparisons(
    experiment: int,
    places: Sequence[PlaceRow],
    outline: Outline,
    facts: Mapping[int, RunFacts],
    metric: str,
    seen: set[tuple[int, int]],
) -> list[Comparison]:
    """What an experiment tells; pairs of runs that are in `seen` are left out, the others added.

    A pair are runs of one replicate whose resolved parameters differ in nothing but in freezing or
    tuning the copied layers, and in what was chosen for each by validation.
    """
    arms: dict[tuple[str, str, int], dict[str, Observation]] = defaultdict(dict)
    tuned = {place.run.id: place.tuned for place in places}
    for one in observed(places, chosen(places, outline), metric, outline):
        about = facts.get(one.run_id)
        arm = _arm(about.params["layers"]) if about is not None else None
        if about is None or arm is None or one.value is None or about.num_per_class is None:
            continue
        rest = _without(about.params, ["layers", *tuned[one.run_id]])
        read = {name: source["fingerprint"] for name, source in about.inputs.items()}
        setting, inputs = (json.dumps(value, sort_keys=True) for value in ([arm[1], rest], read))
        arms[setting, inputs, one.replicate][arm[0]] = one
    settings: dict[str, list[tuple[Observation, Observation]]] = defaultdict(list)
    for (setting, _, _), sides in arms.items():
        if len(sides) < 2:
            continue
        pair = sides["tuned"], sides["frozen"]
        ids = pair[0].run_id, pair[1].run_id
        if ids not in seen:
            seen.add(ids)
            settings[setting].append(pair)
    return [
        _comparison(experiment, pairs, facts, metric, chosen=outline.tuning is not None)
        for pairs in settings.values()
    ]


def _comparison(
    experiment: int,
    pairs: Sequence[tuple[Observation, Observation]],
    facts: Mapping[int, RunFacts],
    metric: str,
    *,
    chosen: bool,
) -> Comparison:
    differences = []
    for one, other in pairs:
        assert one.value is not None and other.value is not None, "left out otherwise"
        differences.append((unit(one), one.value - other.value))
    difference = spread(unit_means(differences))
    about = facts[pairs[0][0].run_id]
    layers = about.params["layers"]
    return Comparison(
        network=Network.of(about),
        target=Target.of(about.params["target"]),
        layers=layers,
        num_copied=_num_copied(layers),
        num_per_class=about.num_per_class or 0.0,
        metric=metric,
        experiment=experiment,
        difference=difference,
        interval=interval(difference),
        pairs=tuple((one.run_id, other.run_id) for one, other in pairs),
        chosen=chosen,
    )


def _arm(layers: str) -> tuple[str, str] | None:
    """``tuned`` or ``frozen``, and the text that both have in common; None for any mixture."""
    kinds = {kind for kind, _ in _TERM.findall(layers)}
    if {"F", "FT"} <= kinds or not kinds & {"F", "FT"}:
        return None
    return "tuned" if "FT" in kinds else "frozen", layers.replace("FT(", "F(")


def _num_copied(layers: str) -> int:
    """How many layers are not re-initialised, of a resolved text."""
    count = 0
    for kind, ranges in _TERM.findall(layers):
        if kind != "R":
            first, _, last = ranges.partition("-")
            count += int(last or first) - int(first) + 1
    return count


def _without(params: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """`params` less the values at dotted `paths`."""
    left: dict[str, Any] = json.loads(json.dumps(params))
    for path in paths:
        *parents, last = path.split(".")
        inner: Any = left
        for name in parents:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(last, None)
    return left
