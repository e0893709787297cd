"""Small real fine-tuning for tests: its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from jobs.finetune import Finetune, FinetuneParams

LAYERS = "F(1-16)FT(17-18)R(19)"
BASE: dict[str, Any] = {
    "model": {"name": "efficientnet_lite0", "weights": "imagenet"},
    "layers": LAYERS,
    "target": {
        "dataset": "digits", "decode_size": 36, "crop_size": 32, "test_fraction": 0.02,
        "val_per_class": 2, "per_class": 3,
    },
    "train": {
        "epochs": 3, "batch_size": 8, "lr": 0.05, "crop": "random", "select": "val/nll",
        "schedule": "step", "step_size_epochs": 2,
    },
}  # fmt: skip


def params(**sections: dict[str, Any] | str) -> FinetuneParams:
    """The resolved base parameters with some keys replaced."""
    raw = {name: dict(value) if isinstance(value, dict) else value for name, value in BASE.items()}
    for name, changes in sections.items():
        raw[name] = {**raw[name], **changes} if isinstance(changes, dict) else changes
    job = Finetune()
    return job.resolve(job.Params.model_validate(raw), Path())


@contextmanager
def torch_as_found() -> Iterator[None]:
    """A run makes torch deterministic for its whole process; undo that."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)
