"""Sources in a home: trained first and once, each start from the one that its cell names."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.homes import LiveHome

SOURCES = """
experiment: sources
job: pretrain
model: {name: mini8}
source: {dataset: digits, decode_size: 16, val_per_class: 5, per_class: 8}
train: {steps: 6, batch_size: 16, lr: 0.0001}
keep_at: [2, 4]
factors: {source.classes.num_classes: [2, 4]}
replicates: 2
"""
ADAPTED = """
experiment: adapted
job: finetune
model: {name: mini8, weights: {run: sources, checkpoint: 4}}
layers: "F(1-7)R(8)"
target: {dataset: digits, decode_size: 16, val_per_class: 5, per_class: 4}
train: {steps: 3, batch_size: 16, lr: 0.05}
factors: {model.weights.cell.source.classes.num_classes: [2, 4]}
replicates: 2
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> LiveHome:
    """Sources, and what starts from them, enqueued before any was trained."""
    live = LiveHome(tmp_path_factory.mktemp("sources") / "home", slots=2)
    live.enqueue(SOURCES)
    live.enqueue(ADAPTED)
    queued = {row["id"]: row["reason"] for row in live.json("status")["queued"]}
    assert [queued[f"r{run}"] for run in (5, 6, 7, 8)] == [
        f"needs r{run}, which is queued" for run in (1, 2, 3, 4)
    ]
    assert live.finish() == 0, live.log()
    return live


def kept(home: LiveHome, run: str, name: str = "weights.safetensors") -> dict[str, torch.Tensor]:
    """The weights that a run kept under `name`."""
    (found,) = (one for one in home.json("show", run)["artifacts"] if one["name"] == name)
    return load_file(home.root / found["path"])


def test_each_source_is_trained_once_for_all(home: LiveHome) -> None:
    """Replicate r of a cell starts from replicate r of the cell it names, after that is done."""
    assert home.states() == ["done"] * 8
    shown = {run: home.json("show", f"r{run}") for run in range(1, 9)}
    assert [len(about["attempts"]) for about in shown.values()] == [1] * 8
    for run, source in ((5, 1), (6, 2), (7, 3), (8, 4)):
        weights = shown[run]["provenance"]["inputs"]["weights"]
        assert (weights["run"], weights["file"]) == (f"r{source}", "weights-4.safetensors")
        assert shown[run]["replicate"] == shown[source]["replicate"]
        (before,), (after,) = shown[source]["attempts"], shown[run]["attempts"]
        assert before["ended_at"] <= after["started_at"]


def test_it_starts_from_the_weights_of_that_step(home: LiveHome) -> None:
    """Frozen layers are the source's after four steps, not its final ones."""
    frozen = kept(home, "r5")["features.0.weight"]
    assert torch.equal(frozen, kept(home, "r1", "weights-4.safetensors")["features.0.weight"])
    assert not torch.equal(frozen, kept(home, "r1", "weights-2.safetensors")["features.0.weight"])
    assert not torch.equal(frozen, kept(home, "r1")["features.0.weight"])


def test_a_source_that_learned_nothing_is_told_of(home: LiveHome) -> None:
    """By what started from it, in its own page, the list of what ended, and the summary."""
    assert {"near_chance"} <= {flag for run in home.runs("sources") for flag in run["flags"]}
    weak = next(run for run in home.runs("adapted") if run["sources_at_chance"])
    said = f"{weak['sources_at_chance'][0]} is near chance"
    assert said in home.ftd("show", weak["id"]).stdout
    assert f"source {said}" in home.ftd("summary", "adapted").stdout
    assert f"source {said}" in home.ftd("status").stdout


def test_what_cannot_be_started_from_is_told_when_enqueued(home: LiveHome) -> None:
    """A cell or a checkpoint that is not there, with those that are."""
    for old, new, says in (
        ("checkpoint: 4", "checkpoint: 5", "kept no weights-5.safetensors"),
        ("[2, 4]", "[2, 5]", "Its cells: source.classes.num_classes=2; source.classes"),
        ("{run: sources", "{run: source", "no experiment source"),
    ):
        done = home.ftd("enqueue", "-", stdin=ADAPTED.replace(old, new))
        assert done.returncode == 2 and says in done.stderr
        assert "model.weights" in done.stderr or "factors" in done.stderr
