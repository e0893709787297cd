"""What fine-tuning changed, layer by layer: each measure's mean and interval in every cell.

Reads metrics called ``split/measure_layer``; what is measured before and after is also compared
within each run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftd.outline import Label, Outline
from ftd.stats.observations import Observation, unit
from ftd.stats.reading import chosen, observed
from ftd.stats.spread import Interval, Spread, interval, spread, unit_means

if TYPE_CHECKING:
    from ftd.ledger.places import PlaceRow

SINGLE = (
    "relative", "drift", "unit_drift_mean", "unit_drift_q1", "unit_drift_median", "unit_drift_q3",
    "batchnorm_mean", "batchnorm_deviation", "batchnorm_scale", "batchnorm_shift", "cka",
)  # fmt: skip
TWICE = ("separability", "probe", "selectivity", "selective", "label_entropy")  # before and after
MEASURES = (*SINGLE, *TWICE)


@dataclass(frozen=True)
class LayerValue:
    """A layer's measure in one cell over independent units: `before` and `after` where it is
    measured twice, with `value` their difference within each run; else the measure itself.

    A part that the runs grew was not there before: it has `after` alone, and no value."""

    layer: str
    value: Spread
    interval: Interval | None
    before: Spread | None = None
    after: Spread | None = None


@dataclass(frozen=True)
class Profile:
    """One measure of one cell, a value per layer in the network's order."""

    measure: str
    split: str
    cell: int
    factors: Mapping[str, Label]
    layers: tuple[LayerValue, ...]
    run_ids: tuple[int, ...]


def profiles(
    places: Sequence[PlaceRow],
    outline: Outline,
    measures: Sequence[str] = MEASURES,
    order: Sequence[str] = (),
) -> list[Profile]:
    """The profile of each of `measures` in every cell, as far as runs have measured it.

    `order` are the network's layers from first to last; others come after them.
    """
    choices = chosen(places, outline)
    names = list(dict.fromkeys(name for place in places for name in place.run.metrics))
    found = []
    for measure in measures:
        for split, layers in _layers(measure, names, order).items():
            seen = {
                name: observed(places, choices, name, outline)
                for layer in layers
                for name in _names(split, measure, layer)
            }
            for cell in sorted({place.cell for place in places}):
                profile = _profile(measure, split, layers, cell, seen)
                if profile is not None:
                    found.append(profile)
    return found


def _names(split: str, measure: str, layer: str) -> tuple[str, ...]:
    """The metrics that make up one layer's value."""
    parts = (f"{measure}_before", f"{measure}_after") if measure in TWICE else (measure,)
    return tuple(f"{split}/{part}_{layer}" for part in parts)


def _layers(measure: str, names: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    """The layers that have the measure, by split, in their `order`."""
    found: dict[str, list[str]] = defaultdict(list)
    prefix = f"{measure}_after_" if measure in TWICE else f"{measure}_"
    for name in names:
        split, _, rest = name.partition("/")
        if rest.startswith(prefix):
            found[split].append(rest.removeprefix(prefix))
    place = {layer: index for index, layer in enumerate(order)}
    for layers in found.values():
        layers.sort(key=lambda layer: place.get(layer, len(place)))
    return dict(found)


def _profile(
    measure: str,
    split: str,
    layers: Sequence[str],
    cell: int,
    seen: Mapping[str, Sequence[Observation]],
) -> Profile | None:
    values, ids = [], set()
    factors: Mapping[str, Label] = {}
    for layer in layers:
        rows = [
            {one.replicate: one for one in seen[name] if one.cell == cell and one.value is not None}
            for name in _names(split, measure, layer)
        ]
        measured = [row for row in rows if row]
        both = [replicate for replicate in rows[-1] if all(replicate in row for row in measured)]
        if not both:
            continue
        units = [unit(rows[-1][replicate]) for replicate in both]
        columns = [[row[replicate].value or 0.0 for replicate in both] for row in measured]
        spreads = [spread(unit_means(zip(units, column, strict=True))) for column in columns]
        ids |= {rows[-1][replicate].run_id for replicate in both}
        factors = rows[-1][both[0]].factors
        if measure not in TWICE:
            values.append(LayerValue(layer, spreads[0], interval(spreads[0])))
        elif len(spreads) == 1:
            values.append(LayerValue(layer, spread([]), None, after=spreads[0]))
        else:
            differences = [after - before for before, after in zip(*columns, strict=True)]
            value = spread(unit_means(zip(units, differences, strict=True)))
            values.append(LayerValue(layer, value, interval(value), *spreads))
    if not values:
        return None
    return Profile(measure, split, cell, factors, tuple(values), tuple(sorted(ids)))
