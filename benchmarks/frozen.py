"""Runs behind frozen layers: computing these at every step, once, or not at all.

The same fine-tuning three times over: the whole network on images; the first run that trains behind
the frozen layers, and has to compute what they say; and one with another learning rate, that finds
it in the store.  Each from reading its decoded images to its last artifact.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.cost import Cost
from benchmarks.figures import Figure
from benchmarks.timed_job import timed_run
from jobs.finetune import Finetune, FinetuneParams
from jobs.layers import numbered, treatments


@dataclass(frozen=True)
class Frozen:
    """A network whose layers but the last are frozen, images, and how long it is trained."""

    model: str
    dataset: str
    decode_size: int
    steps: int
    batch_size: int = 32


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    cases: tuple[Frozen, ...] = (
        Frozen("mini8", "digits", 28, 150),
        Frozen("efficientnet_lite0", "elpv", 96, 150),
    )
    per_class: int = 100
    repeats: int = 3


SMALL = Size(cases=(Frozen("mini8", "digits", 16, 12, 8),), per_class=3, repeats=1)


def measure(size: Size) -> list[Figure]:
    """What the runs cost, as shares of that of the whole network."""
    figures = []
    for case in size.cases:
        with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
            rounds = [
                _Round.of(case, size.per_class, Path(folder), number)
                for number in range(size.repeats)
            ]
        figures += _figures(f"{case.model}, {case.decode_size} px", rounds)
    return figures


def _figures(name: str, rounds: list[_Round]) -> list[Figure]:
    found = [Figure(f"{name}: whole network (CPU)", "s", [one.whole.cpu_s for one in rounds])]
    for kind, of in (("CPU", lambda cost: cost.cpu_s), ("wall", lambda cost: cost.wall_s)):
        for who in ("first", "next"):
            shares = [of(getattr(one, who)) / of(one.whole) for one in rounds]
            found.append(Figure(f"{name}: {who} run, of the whole's ({kind})", "x", shares))
    return found


@dataclass(frozen=True)
class _Round:
    """What each of the three cost."""

    whole: Cost
    first: Cost
    next: Cost

    @classmethod
    def of(cls, case: Frozen, per_class: int, root: Path, number: int) -> _Round:
        """The three, one after the other, on decoded images and otherwise nothing."""
        from jobs.train import whole

        store, weights = root / f"store{number}", _weights(case, root)

        def cost(name: str, lr: float, *, on_images: bool = False, steps: int = case.steps) -> Cost:
            as_always = patch.object(whole, "behind_frozen_layers", lambda training, *_: training)
            with as_always if on_images else nullcontext():
                params = _params(case, per_class, weights, lr, steps)
                done = timed_run(root / f"{name}{number}", store, params, 60.0, lambda: None)
                return done.whole.total

        cost("decoding", 0.01, on_images=True, steps=1)
        return cls(cost("whole", 0.01, on_images=True), cost("first", 0.01), cost("next", 0.02))


def _weights(case: Frozen, root: Path) -> Any:
    """The published weights of a network, or a file of random ones."""
    if case.model == "efficientnet_lite0":
        return "imagenet"
    from safetensors.torch import save_file

    from jobs.models.build import build

    file = root / "weights.safetensors"
    chosen = treatments("R(1-)", len(numbered(case.model)))
    network = build(case.model, ("one", "two"), chosen, None, init_seed=0, dropout_seed=0)
    save_file(network.state(), file)
    return {"file": str(file)}


def _params(case: Frozen, per_class: int, weights: Any, lr: float, steps: int) -> FinetuneParams:
    raw = {
        "model": {"name": case.model, "weights": weights},
        "layers": "F(1-last-1)R(last)",
        "target": {
            "dataset": case.dataset,
            "decode_size": case.decode_size,
            "per_class": per_class,
            "val_per_class": 20,
        },
        "train": {"steps": steps, "batch_size": case.batch_size, "lr": lr},
    }
    return Finetune().resolve(FinetuneParams.model_validate(raw), Path("/"))
