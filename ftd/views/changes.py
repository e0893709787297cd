"""What fine-tuning changed: for each measure a line per layer, a column per cell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from ftd.stats.layers import TWICE, LayerValue, Profile
from ftd.stats.spread import CONFIDENCE, Spread
from ftd.views.phrases import decimals, factors, number, run_ids
from ftd.views.table import Table, table

MEANING = {
    "relative": "relative change of the weights, |after - before| / |before|",
    "drift": "cosine drift of the weights, 1 - cosine",
    "unit_drift_mean": "cosine drift of single units, mean",
    "unit_drift_q1": "cosine drift of single units, lower quartile",
    "unit_drift_median": "cosine drift of single units, median",
    "unit_drift_q3": "cosine drift of single units, upper quartile",
    "batchnorm_mean": "move of BatchNorm's stored mean, in stored deviations",
    "batchnorm_deviation": "move of BatchNorm's stored deviation, relative",
    "batchnorm_scale": "move of BatchNorm's scale, relative",
    "batchnorm_shift": "move of BatchNorm's shift, relative to its scale",
    "cka": "linear CKA of the features before and after: 1 is the same",
    "separability": "separability of the classes, S_B / S_W: after - before",
    "probe": "mean recall per class of a linear classifier on the features: after - before",
    "selectivity": "average precision of units for their best class, mean: after - before",
    "selective": "share of units with an average precision of at least 0.5: after - before",
    "label_entropy": "entropy of the labels of the top images: after - before",
}


def tables(title: str, found: Sequence[Profile], doubts: Sequence[str] = ()) -> list[Table]:
    """A table per measure, then how to read them; `doubts` about single runs stand above."""
    if not found:
        return [table(title, (), (), empty="no run has measured changes")]
    parts = [table(title, (), (), notes=(f"runs: {run_ids(_run_ids(found))}", *doubts))]
    parts += [_measure(list(some)) for _, some in groupby(found, _subject)]
    notes = [
        f"[low, high]: {CONFIDENCE:.0%} interval of the mean over replicates (Student's t), "
        "each for itself",
        "after - before: within each run; - : nothing measured (re-initialised, constant, or not "
        "there before)",
    ]
    return [*parts, table("", (), (), notes=notes)]


def _subject(one: Profile) -> tuple[str, str]:
    return one.measure, one.split


def _measure(found: Sequence[Profile]) -> Table:
    measure, split = _subject(found[0])
    layers = list(dict.fromkeys(value.layer for one in found for value in one.layers))
    by_cell = [{value.layer: value for value in one.layers} for one in found]
    places = decimals(value.value.sd for one in found for value in one.layers)
    places = min(places, 4)
    headings = ["layer"]
    for one in found:
        cell = factors({_short(name): label for name, label in one.factors.items()}) or "all"
        headings += (
            [f">{cell} before", ">after", ">difference"] if measure in TWICE else [f">{cell}"]
        )
    rows = [
        (layer, *(text for cell in by_cell for text in _texts(cell.get(layer), measure, places)))
        for layer in layers
    ]
    where = "" if split == "change" else f" ({split} images)"
    return table(f"{measure}{where}: {MEANING[measure]}", headings, rows)


def _short(factor: str) -> str:
    """A factor of the runs compared, as their experiment calls it."""
    return factor.removeprefix("after.cell.")


def _texts(value: LayerValue | None, measure: str, places: int) -> list[str]:
    if value is None:
        return ["-"] * (3 if measure in TWICE else 1)
    shown = number(value.value.mean, places, signed=measure in TWICE)
    if value.interval is not None:
        low, high = (number(end, places) for end in (value.interval.low, value.interval.high))
        shown += f" [{low}, {high}]"
    sides = (value.before, value.after) if measure in TWICE else ()
    return [*(number(None if side is None else side.mean, places) for side in sides), shown]


def _run_ids(found: Sequence[Profile]) -> list[int]:
    return [run for one in found for run in one.run_ids]


def as_json(found: Sequence[Profile]) -> list[dict[str, Any]]:
    """What ``ftd changes --json`` prints of the measures."""
    return [
        {
            "measure": one.measure,
            "split": one.split,
            "cell": one.cell,
            "factors": dict(one.factors),
            "runs": [f"r{run}" for run in one.run_ids],
            "layers": [_layer_json(value) for value in one.layers],
        }
        for one in found
    ]


def _layer_json(value: LayerValue) -> dict[str, Any]:
    limits = value.interval
    told: dict[str, Any] = {
        "layer": value.layer,
        **_spread_json(value.value),
        "interval": None if limits is None else [limits.low, limits.high],
    }
    for name, side in (("before", value.before), ("after", value.after)):
        if side is not None:
            told[name] = _spread_json(side)
    return told


def _spread_json(found: Spread) -> dict[str, Any]:
    return {"n": found.n, "mean": found.mean, "sd": found.sd}
