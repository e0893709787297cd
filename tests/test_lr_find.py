"""The search for a learning rate: what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.job import Completed
from jobs.finetune import Finetune
from jobs.params.lr_find import LrFindParams
from jobs.train.lr_find import least, smoothed, tried_rates, window
from tests.context import FolderContext
from tests.finetuning import params

SEARCH = {"lowest": 1e-4, "highest": 10, "steps": 20}


pytestmark = pytest.mark.usefixtures("torch_left_as_found")


def run(root: Path, store: Path, **train: object) -> tuple[Completed, FolderContext]:
    """A run of few steps and layers."""
    root.mkdir()
    context = FolderContext(root, shared=store)
    target = {"per_class": 2, "val_per_class": 1, "decode_size": 20, "crop_size": 16}
    wanted = params(layers="F(1-17)FT(18)R(19)", target=target, train={"epochs": 1, **train})
    return Finetune().run(wanted, context), context


def lr_note(context: FolderContext) -> dict[str, Any]:
    """What the history says of the search."""
    (note,) = [data for kind, data in context.notes if kind == "lr_find"]
    return note


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(5, 200))
def test_losses_are_averaged_over_windows(losses: list[float], steps: int) -> None:
    """Smoothed losses are numpy's moving average, over an odd number of steps around each."""
    width = window(steps)
    assert width % 2 == 1 and 3 <= width <= max(3, steps // 5 + 1)
    found = smoothed(losses, width)
    if len(losses) < width:
        assert found == []
    else:
        wanted = np.convolve(losses, np.ones(width) / width, mode="valid")
        assert found == pytest.approx(wanted.tolist(), abs=1e-9)


def test_a_small_loss_by_accident_is_not_the_least() -> None:
    """A valley of many steps wins over one lucky batch at the start."""
    losses = [2.3, 1.6, 2.3, 2.3, *[2.3] * 20, *[1.7] * 8, *[9.0] * 8]
    width = window(len(losses))
    best = least(smoothed(losses, width))
    assert best is not None and 24 <= best + width // 2 < 32


def test_rates_are_a_geometric_series() -> None:
    """From the lowest to the highest, each the same multiple of the one before."""
    rates = tried_rates(LrFindParams.model_validate(SEARCH))
    assert len(rates) == 20 and rates[0] == 1e-4 and rates[-1] == 10
    ratios = np.array(rates[1:]) / np.array(rates[:-1])
    assert ratios == pytest.approx(ratios[0])


def test_what_is_no_number_is_never_least() -> None:
    """Losses that are not finite are passed over; the first of equals counts."""
    assert least([math.nan, 3.0, 1.0, 1.0, math.inf]) == 2
    assert least([math.nan, math.inf]) is None


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"optimizer": "adamw", "ema_decay": 0.9, "unfreeze": {"every_steps": 2}},
        {"l2_sp": {"alpha": 0.1, "beta": 0.1}, "augment": {"mixup": 0.4}, "keep": "last"},
    ],
    ids=["plain", "average", "penalty"],
)
def test_a_run_with_what_is_found_is_the_same_run(
    train: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    """The search leaves nothing behind but a rate: given that rate, a run is bitwise the same."""
    train = {"head_lr_factor": 2, **train}
    searched, context = run(tmp_path / "a", store, lr_find=SEARCH, lr=123.0, **train)
    lr = searched.metrics["train/lr"]
    told, _ = run(tmp_path / "b", store, lr=lr, **train)
    assert searched.state_sha256 == told.state_sha256
    assert searched.metrics == {**told.metrics, "train/lr": lr}
    assert context.metrics["train/lr", 0] == lr
    another, _ = run(tmp_path / "c", store, lr=3 * lr, **train)
    assert another.state_sha256 != told.state_sha256


def test_the_history_tells_how_it_was_found(store: Path, tmp_path: Path) -> None:
    """Rates, their losses and the rule's outcome are recorded; it ends when the loss explodes."""
    wide = {"lowest": 1e-3, "highest": 1e12, "steps": 30, "divisor": 4}
    completed, context = run(tmp_path / "run", store, lr_find=wide)
    note = lr_note(context)
    assert json.loads(json.dumps(note)) == note
    losses = [math.nan if loss is None else loss for loss in note["losses"]]
    assert 2 < len(losses) == len(note["rates"]) < 30
    best = least(smoothed(losses, window(30)))
    assert best is not None and note["lr"] == note["rates"][best + window(30) // 2] / 4
    assert completed.metrics["train/lr"] == note["lr"]
    assert note["at_highest"] is False and note["fit_set"] == "train"


def test_the_highest_rate_being_best_is_said(store: Path, tmp_path: Path) -> None:
    """Where the loss still fell at the end of the range, the history says so."""
    timid = {"lowest": 1e-4, "highest": 1e-2, "steps": 12, "divisor": 1}
    rates = tried_rates(LrFindParams.model_validate(timid))
    completed, context = run(tmp_path / "run", store, lr_find=timid)
    assert lr_note(context)["at_highest"] is True
    assert completed.metrics["train/lr"] == pytest.approx(rates[-2])
