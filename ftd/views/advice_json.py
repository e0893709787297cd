"""Advice for scripts: what ``ftd advise --json`` prints."""

from __future__ import annotations

import math
from typing import Any

from ftd.stats.advice import Advice, Neighbour, Verdict
from ftd.stats.known_distances import Distances
from ftd.views.advice_specs import Asked, specs


def as_json(found: Advice, asked: Asked) -> dict[str, Any]:
    """What ``ftd advise --json`` prints."""
    line, question = found.boundary, found.question
    scale = next(iter(found.distances), None)
    told: dict[str, Any] | None = None
    if line is not None:
        told = {
            "constant": line.constant,
            "slope_distance": line.slope_distance,
            "slope_size": line.slope_size,
            "points": line.num_points,
        }
        if scale is not None:
            distance = scale.by_target[question.target.key]
            here = line.difference(distance, question.num_per_class)
            limits = line.num_per_class_interval(distance)
            told["difference_interval"] = [here.low, here.high]
            told["from_images_per_class"] = _finite(line.num_per_class(distance))
            told["from_images_per_class_interval"] = limits and [
                _finite(limits.low), _finite(limits.high),
            ]  # fmt: skip
    return {
        "target": {"name": question.target.name, **asked.section},
        "labels": dict(asked.labels),
        "images_per_class": question.num_per_class,
        "metric": asked.metric,
        "distances": [_distance_json(one, found) for one in found.distances],
        "chu_2016": found.chu,
        "comparisons": [_neighbour_json(one) for one in found.neighbours],
        "verdict": _verdict_json(found.verdict),
        "boundary": told,
        "no_boundary": found.no_boundary,
        "specs": specs(found, asked),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _distance_json(one: Distances, found: Advice) -> dict[str, Any]:
    order = one.ranked()
    return {
        "measure": one.measure,
        "model": one.network.model,
        "weights": one.network.weights,
        "layer": one.layer,
        "source": one.source or None,
        "rank": order.index(found.question.target.key) + 1,
        "targets": [
            {
                "target": one.names[key],
                "value": one.by_target[key],
                "runs": [f"r{run}" for run in one.run_ids[key]],
            }
            for key in order
        ],
    }


def _neighbour_json(one: Neighbour) -> dict[str, Any]:
    told = one.comparison
    return {
        "target": told.target.name,
        "model": told.network.model,
        "weights": told.network.weights,
        "layers": told.layers,
        "images_per_class": told.num_per_class,
        "distance": one.distance,
        "n": told.difference.n,
        "mean": told.difference.mean,
        "sd": told.difference.sd,
        "interval": told.interval and [told.interval.low, told.interval.high],
        "is_near": one.is_near,
        "why": one.why,
        "tuned": told.chosen,
        "experiment": f"e{told.experiment}",
        "pairs": [[f"r{run}" for run in pair] for pair in told.pairs],
    }


def _verdict_json(told: Verdict) -> dict[str, Any]:
    return {
        "word": told.word,
        "settings": told.num_settings,
        "for_tuning": told.num_for,
        "against_tuning": told.num_against,
        "negligible": told.num_negligible,
        "mean": told.difference.mean,
        "interval": told.interval and [told.interval.low, told.interval.high],
    }
