"""Which weights are validated and kept: those of an average, of where patience ended training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftd.job import Completed
from jobs.finetune import Finetune
from tests.context import FolderContext
from tests.finetuning import params
from tests.networks import imagenet_state

FOUR_EPOCHS = {"epochs": 4, "batch_size": 10, "schedule": "constant", "step_size_epochs": None}


pytestmark = pytest.mark.usefixtures("torch_left_as_found")


def run(root: Path, store: Path, **train: Any) -> tuple[Completed, FolderContext]:
    """A run of eight steps."""
    root.mkdir()
    context = FolderContext(root, shared=store)
    target = {"per_class": 2, "val_per_class": 1, "decode_size": 36, "crop_size": 32}
    wanted = params(layers="F(1-17)FT(18)R(19)", target=target, train={**FOUR_EPOCHS, **train})
    return Finetune().run(wanted, context), context


def kept(context: FolderContext) -> dict[str, torch.Tensor]:
    """The weights that the run keeps."""
    return load_file(context.root / "artifacts" / "weights.safetensors")


def rows(context: FolderContext, name: str) -> dict[int, float]:
    """A metric's values by step."""
    return {step: value for (found, step), value in context.metrics.items() if found == name}


def test_an_average_that_forgets_at_once_is_the_weights(store: Path, tmp_path: Path) -> None:
    """With decay 0, validation, selection and what is kept are those of a run without."""
    with_it, without = run(tmp_path / "a", store, ema_decay=0.0), run(tmp_path / "b", store)
    assert with_it[0] == without[0]
    assert with_it[1].metrics == without[1].metrics


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_average_is_validated_and_kept(keep: str, store: Path, tmp_path: Path) -> None:
    """A slow average stays near the first weights, while training goes on as without it."""
    slow, context = run(tmp_path / "a", store, ema_decay=0.999, keep=keep)
    plain, other = run(tmp_path / "b", store, keep=keep)
    assert rows(context, "train/loss") == rows(other, "train/loss")
    first, last = rows(context, "val/nll")[2], rows(context, "val/nll")[8]
    assert first != last and abs(first - last) < 0.1 < abs(rows(other, "val/nll")[8] - first)
    name = "conv_head.weight"
    moved = [(kept(one)[name] - imagenet_state()[name]).norm() for one in (context, other)]
    assert 0 < moved[0] < 0.05 * moved[1]
    assert slow.metrics["val/nll"] in rows(context, "val/nll").values()
    assert slow.metrics["train/loss"] == plain.metrics["train/loss"]


def test_patience_ends_a_run_as_if_it_had_been_that_long(store: Path, tmp_path: Path) -> None:
    """Stopped early, a run is the one that was asked for so many steps; the history says so."""
    early = {"patience_steps": 2, "min_delta": 50}
    stopped, context = run(tmp_path / "a", store, early_stop=early, keep="last")
    assert stopped.num_steps == 4
    assert [data for kind, data in context.notes if kind == "early_stop"] == [
        {"step": 4, "num_steps": 8}
    ]
    short, other = run(tmp_path / "b", store, epochs=None, steps=4, keep="last")
    assert short.state_sha256 == stopped.state_sha256
    assert other.metrics == context.metrics


def test_patience_that_is_never_over_changes_nothing(store: Path, tmp_path: Path) -> None:
    """A run that improves in time is the run without early stopping."""
    patient, context = run(tmp_path / "a", store, early_stop={"patience_steps": 100})
    plain, _ = run(tmp_path / "b", store)
    assert patient == plain
    assert not [data for kind, data in context.notes if kind == "early_stop"]
