"""The dry run: the design, what cannot be told apart, labels used, and what it may take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.cli.main import main
from ftd.layout import Home
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.models import Artifact, Attempt
from ftd.spec.confounding import confounded
from tests.finished import complete

Capture = pytest.CaptureFixture[str]
HEAD = "experiment: study\njob: drill\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home that commands use; the current folder is beside it."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path / "home")


@pytest.fixture
def ledger(home: Home) -> Iterator[Ledger]:
    """A ledger with four runs: r1, r2 at score 1, r3, r4 at score 2."""
    Path("spec.yaml").write_text(HEAD + "factors: {score: [1, 2]}\nreplicates: 2\n")
    assert main(["enqueue", "spec.yaml"]) == 0
    opened = open_ledger(home)
    yield opened
    opened.close()


def took(ledger: Ledger, run: int, seconds: float, num_bytes: int = 0) -> None:
    """Let a run be done in one attempt of so many seconds that kept so many bytes."""
    complete(ledger, run, {"test/score": 0.5})
    with ledger.transaction():
        ledger.write(
            Attempt.update(ended_at=Attempt.started_at + seconds).where(Attempt.run == run)
        )
        if num_bytes:
            ledger.insert(
                Artifact, run=run, attempt=1, name="x", num_bytes=num_bytes, sha256="0" * 64
            )


def previewed(capsys: Capture, text: str) -> tuple[Any, str]:
    """A dry run of a spec, as an object and as people see it."""
    Path("next.yaml").write_text(text)
    capsys.readouterr()
    assert main(["enqueue", "next.yaml", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["enqueue", "next.yaml", "--dry-run"]) == 0
    return found, capsys.readouterr().out


def test_without_history_nothing_is_estimated(ledger: Ledger, capsys: Capture) -> None:
    """No run of the job is done: the dry run says so instead of guessing."""
    found, shown = previewed(capsys, HEAD + "replicates: 3")
    assert found["estimated_device_s"] is found["estimated_disk_bytes"] is None
    assert "device time: not known, no run of this job is done here yet" in shown


def test_runs_with_the_same_parameters_tell_best(ledger: Ledger, capsys: Capture) -> None:
    """Other seeds of a known cell take its mean, unknown cells that of the job's runs."""
    took(ledger, 1, 10, num_bytes=100)
    took(ledger, 2, 20)
    took(ledger, 3, 60, num_bytes=800)
    # score 1: two are done, one of 15 s is new; score 2: 60 s; score 3: the mean of all, 30 s
    found, shown = previewed(capsys, HEAD + "factors: {score: [1, 2, 3]}\nreplicates: 3")
    assert found["estimated_device_s"] == pytest.approx(15 + 2 * 60 + 3 * 30)
    assert found["estimated_disk_bytes"] == pytest.approx(50 + 2 * 800 + 3 * 300)
    assert found["estimated_from_runs"] == 3
    assert "going by 3 runs of this job that are done (3 of them have their like" in shown
    assert "device time: about 3 min 45 s, disk: about 2.5 KiB, for 6 runs" in shown


def test_an_attempt_that_was_lost_costs_too(ledger: Ledger, capsys: Capture) -> None:
    """Device time is that of all attempts of a run."""
    took(ledger, 1, 10)
    with ledger.transaction():
        (row,) = ledger.rows(Attempt.select().where(Attempt.run == 1))
        ledger.insert(
            Attempt, run=1, number=2, worker=row["worker"], outcome="completed", started_at=0.0,
            ended_at=5.0,
        )  # fmt: skip
    found, _ = previewed(capsys, HEAD + "score: 1\nreplicates: 2")
    assert found["estimated_device_s"] == pytest.approx(15)


def test_a_conditional_factor_is_shown_where_it_exists(home: Home, capsys: Capture) -> None:
    """Its column is empty elsewhere, and nothing is made up in JSON."""
    found, shown = previewed(
        capsys, HEAD + "factors: {score: [1, 2], noise: {levels: [0, 1], when: {score: 2}}}"
    )
    assert [cell["factors"] for cell in found["cells"]] == [
        {"score": 1.0}, {"score": 2.0, "noise": 0.0}, {"score": 2.0, "noise": 1.0},
    ]  # fmt: skip
    assert "3 cells x 1 replicate = 3 distinct runs" in shown
    assert not home.root.exists()


def test_labels_used_by_each_cell(home: Home, capsys: Capture) -> None:
    """Images labelled for validation are counted beside those for training."""
    text = """
experiment: study
job: finetune
model: {name: resnet18, weights: none}
layers: R(1-)
target: {dataset: digits, decode_size: 32, val_per_class: 5}
train: {epochs: 1}
factors:
  target.per_class: [10, 40]
"""
    found, shown = previewed(capsys, text)
    assert [cell["labels_used"] for cell in found["cells"]] == [
        "10 per class, val 5 per class",
        "40 per class, val 5 per class",
    ]
    assert "labels used" in shown and "40 per class, val 5 per class" in shown


def test_arms_that_cannot_be_told_apart(home: Home, capsys: Capture) -> None:
    """Two factors whose levels always change together are warned about, by name."""
    cells = "cells: [{score: 1, steps: 5, width: 4}, {score: 2, steps: 9, width: 4}]"
    found, shown = previewed(capsys, HEAD + cells)
    assert found["confounded"] == [["score", "steps"]]
    assert "warning: score and steps always change together" in shown


def test_bundles_say_what_they_bundle(home: Home, capsys: Capture) -> None:
    """Levels that differ in several parameters are named with these; equal ones do not count."""
    text = (
        "factors:\n  recipe:\n"
        "  - {name: short, set: {steps: 5, width: 4, noise: 0}}\n"
        "  - {name: long, set: {steps: 9, width: 4}}\n"
        "  one: [{name: a, set: {score: 1}}, {name: b, set: {score: 2}}]\n"
    )
    found, shown = previewed(capsys, HEAD + text)
    assert found["bundles"] == {"recipe": ["steps", "noise"]}
    assert "levels of recipe differ in steps and noise: what differs between them is the" in shown
    blocks = text.replace("  - {name: short", "    role: block\n    levels:\n    - {name: short")
    found, _ = previewed(capsys, HEAD + blocks.replace("  - {name: long", "    - {name: long"))
    assert found["bundles"] == {}


LEVELS = st.integers(0, 2)
CELLS = st.lists(
    st.dictionaries(st.sampled_from("abc"), LEVELS, min_size=1), min_size=1, max_size=6
)


@given(CELLS)
def test_confounded_is_a_bijection_between_levels(cells: list[dict[str, int]]) -> None:
    """Exactly the pairs with at least two joint levels, as many as each factor has there."""
    names = list(dict.fromkeys(name for cell in cells for name in cell))
    expected = []
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            pairs = {(cell[one], cell[other]) for cell in cells if one in cell and other in cell}
            sizes = {len(pairs), len({a for a, _ in pairs}), len({b for _, b in pairs})}
            if len(pairs) > 1 and len(sizes) == 1:
                expected.append((one, other))
    assert confounded(cells) == expected


def test_a_whole_crossing_confounds_nothing() -> None:
    """Levels of one kind, or of factors that vary freely, are no warning."""
    assert confounded([{"a": a, "b": b} for a in range(2) for b in range(2)]) == []
    assert confounded([{"a": 1, "b": 1}]) == []
    assert confounded([{"a": True, "b": 1}, {"a": 1, "b": 2}]) == [("a", "b")]
