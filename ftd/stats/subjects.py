"""What evidence is about: networks and targets, as runs name them and as people call them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftd.ledger.evidence import RunFacts

_WEIGHTS = ("run", "cell", "checkpoint", "file")
_WHICH = ("dataset", "folder", "file", "multi_label", "hf", "classes", "elpv")  # not how many


@dataclass(frozen=True)
class Network:
    """A network by its name and weights; `producers` are the runs that kept these, if any.

    ``written`` are the weights as a spec writes them.
    """

    model: str
    weights: str
    producers: frozenset[str] = field(default=frozenset(), compare=False)
    written: Any = field(default=None, compare=False)

    @classmethod
    def of(cls, facts: RunFacts) -> Network:
        """The network that a run began with."""
        model, source = facts.params["model"], facts.inputs.get("weights", {})
        runs = {source["run"]} if source.get("kind") == "run" else set()
        weights = written = model["weights"]
        if isinstance(weights, Mapping):
            written = {name: weights[name] for name in _WEIGHTS if weights.get(name)}
        return cls(model["name"], weights_text(weights), frozenset(runs), written)

    def is_like(self, other: Network) -> bool:
        """Whether both begin alike, whatever people called the run that kept the weights."""
        if self.model != other.model:
            return False
        return self.weights == other.weights or bool(self.producers & other.producers)

    def fits(self, model: str | None, weights: str | None) -> bool:
        """Whether it is of this model and these weights, as people call them (None: any)."""
        return model in (None, self.model) and weights in (None, self.weights)

    def __str__(self) -> str:
        return f"{self.model}, {self.weights}"


def weights_text(weights: Any) -> str:
    """Weights as people call them: imagenet, a run or experiment and its cell, a file."""
    if not isinstance(weights, Mapping):
        return str(weights)
    parts = [str(weights.get("run") or weights.get("file"))]
    cell = weights.get("cell") or {}
    parts += [f"{name}={json.dumps(level)}" for name, level in cell.items()]
    if weights.get("checkpoint") is not None:
        parts.append(f"after {weights['checkpoint']} steps")
    return " ".join(parts)


@dataclass(frozen=True)
class Target:
    """Images and classes, however many are trained on; `key` tells it from others."""

    name: str
    key: str

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Target:
        """The target in the parameters of a run."""
        which = {name: params.get(name) for name in _WHICH}
        if params["dataset"] != "elpv":
            del which["elpv"]
        if params["dataset"] != "hf":
            del which["hf"]
        return cls(_name(params), json.dumps(which, sort_keys=True))


def _name(params: Mapping[str, Any]) -> str:
    place = params.get("file") or params.get("folder") or ""
    shown = params["dataset"]
    if shown in ("folder", "csv", "hf"):
        shown = place.rstrip("/").rpartition("/")[2] or shown
    classes = params.get("classes") or {}
    for word, names in (("only", classes.get("only")), ("without", classes.get("drop"))):
        if names:
            shown += f" {word} {', '.join(map(str, names[:5]))}" + (", ..." * (len(names) > 5))
    if classes.get("merge") or classes.get("map"):
        shown += " (classes merged)"
    return str(shown)
