"""Specs that would tell what advice does not know, ready to be enqueued."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ftd.stats.advice import Advice
from ftd.stats.subjects import Network


@dataclass(frozen=True)
class Asked:
    """What somebody asked with: the section ``target``, its labels, the metric compared by.

    `sources` are sections of what networks (by their text) were pretrained on, as far as known;
    `start` is the network where there is no evidence, `replicates` how many experiments have.
    """

    section: Mapping[str, Any]
    labels: Mapping[str, Any]
    metric: str
    is_given: bool  # the number of images per class was
    sources: Mapping[str, Mapping[str, Any]]
    start: Network
    replicates: Mapping[str, int]


def specs(found: Advice, asked: Asked) -> dict[str, str]:
    """Specs that would tell what is not known, by what for; none where enough is."""
    question = found.question
    known = next((one.comparison.network for one in found.neighbours), None)
    network = known or asked.start
    source = asked.sources.get(str(network), {})
    model = {"name": network.model, "weights": network.written}
    seen_at = {name: source[name] for name in ("decode_size", "crop_size") if name in source}
    section = {**seen_at, **asked.section}
    wanted: dict[str, dict[str, Any]] = {}
    if not found.distances:
        wanted["its distance"] = {
            "experiment": "distance",
            "job": "distance",
            "model": model,
            **({"source": dict(source)} if source else {}),
            "target": section,
        }
    if found.verdict.word in ("unknown", "undecided", "contradictory"):
        if asked.is_given:
            section = section | {"per_class": int(question.num_per_class)}
        wanted["whether to freeze or tune"] = {
            "experiment": "freeze-or-tune",
            "job": "finetune",
            "model": model,
            "target": section,
            "train": {"steps": 500, "batch_size": 32},
            "factors": {"layers": ["F(1-last-1)R(last)", "FT(1-last-1)R(last)"]},
            "tune": {
                "over": {"train.lr": [0.001, 0.004, 0.016, 0.064]},
                "select": f"val/{asked.metric.partition('/')[2]}",
            },
            "replicates": min(
                5 if found.verdict.word != "undecided" else 4 * _num_replicates(found),
                _num_sources(network, asked),
            ),
        }
    return {
        why: yaml.safe_dump(spec, sort_keys=False, default_flow_style=None, width=1000)
        for why, spec in wanted.items()
    }


def _num_replicates(found: Advice) -> int:
    """The most that a near setting has; four times as many halve its interval."""
    return max(one.comparison.difference.n for one in found.neighbours if one.is_near)


def _num_sources(network: Network, asked: Asked) -> float:
    """How many replicates can start from it: as many as its experiment has, unless that is one."""
    run = network.written.get("run") if isinstance(network.written, Mapping) else None
    number = asked.replicates.get(str(run), 1)
    return number if number > 1 else math.inf
