"""Small joint training for tests: its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftd.job import Completed
from jobs.joint import Joint, JointParams
from tests.context import FolderContext

LOW, HIGH = ["0", "1", "2", "3", "4"], ["5", "6", "7", "8", "9"]
IMAGES = {"dataset": "digits", "decode_size": 20, "crop_size": 16, "test_fraction": 0.02}
BASE: dict[str, Any] = {
    "model": {"name": "mini8", "weights": "none"},
    "layers": "R(1-8)",
    "target": {**IMAGES, "classes": {"only": HIGH}, "per_class": 3, "val_per_class": 1},
    "train": {"epochs": 2, "batch_size": 8, "lr": 0.02, "crop": "random", "select": "val/nll"},
    "source": {**IMAGES, "classes": {"only": LOW}, "per_class": 12, "val_per_class": 0},
    "selection": {"by": "all"},
}

NEAR = {"by": "descriptors", "neighbours": 5, "descriptors": {"bins": 8, "smoothing": 0.01}}


def params(**sections: Mapping[str, Any] | Sequence[Any] | float | str | None) -> JointParams:
    """The resolved base parameters with some keys replaced; ``selection`` and others that are
    no sections of finetune as a whole, or left out if None."""
    raw = dict(BASE)
    for name, changes in sections.items():
        keeps = isinstance(changes, Mapping) and name in ("model", "target", "train", "source")
        raw[name] = {**raw[name], **changes} if keeps else changes  # type: ignore[dict-item]
        if changes is None:
            del raw[name]
    job = Joint()
    found = job.resolve(job.Params.model_validate(raw), Path())
    assert isinstance(found, JointParams)
    return found


def run(
    root: Path, store: Path, wanted: JointParams, **fields: Any
) -> tuple[FolderContext, Completed]:
    """Run to the end in `root`."""
    root.mkdir(parents=True, exist_ok=True)
    context = FolderContext(root, shared=store, **fields)
    return context, Joint().run(wanted, context)
