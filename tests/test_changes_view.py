"""``ftd changes`` on a real ledger: a line per layer, a column per cell, every number traced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from ftd.cli.main import main
from ftd.ledger.db import Ledger
from ftd.ledger.names import experiment_id
from ftd.ledger.places import outline, places
from ftd.ledger.producers import producers
from ftd.planning.plan import make_plan
from ftd.spec.experiment import parse
from ftd.stats.layers import profiles
from tests.finished import complete
from tests.ledgers import enqueue, new_ledger, plan

BEFORE = (0.50, 0.52, 0.57)
AFTER = {1: (0.60, 0.65, 0.68), 2: (0.90, 0.80, 0.94)}


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Two levels x three replicates that measured three layers of a network."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    opened = new_ledger(tmp_path)
    enqueue(opened, plan(levels=(1, 2), replicates=3))
    for run in range(1, 7):
        level, replicate = (run + 2) // 3, (run - 1) % 3
        complete(
            opened,
            run,
            {
                "change/relative_stem": 0.01 * run,
                "change/relative_conv_head": 0.1 * run,
                "val/separability_before_stem": 1.0,
                "val/separability_after_stem": 1.0,
                "val/separability_before_conv_head": BEFORE[replicate],
                "val/separability_after_conv_head": AFTER[level][replicate],
                "val/separability_after_grown": AFTER[level][replicate],
                "val/cka_classifier": 0.5,
            },
        )
    yield opened
    opened.close()


def shown(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command prints."""
    capsys.readouterr()
    assert main(["changes", "study", *options]) == 0
    return capsys.readouterr().out


def profile(found: Any, measure: str, level: int) -> Any:
    """The layers of a measure at a level."""
    (one,) = (
        one
        for one in found["measures"]
        if one["measure"] == measure and one["factors"] == {"level": level}
    )
    return {layer["layer"]: layer for layer in one["layers"]}


def test_means_and_intervals(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Per layer and cell, over replicates, as scipy computes them; runs are named."""
    found = json.loads(shown(capsys, "--json"))
    head = profile(found, "relative", 2)["conv_head"]
    assert head["n"] == 3 and head["mean"] == pytest.approx(0.5)
    wanted = stats.t.interval(0.95, 2, 0.5, stats.sem([0.4, 0.5, 0.6]))
    assert head["interval"] == pytest.approx(list(wanted))
    assert {"r4", "r5", "r6"} == {
        run for one in found["measures"] if one["factors"] == {"level": 2} for run in one["runs"]
    }


@pytest.mark.parametrize("order", [("stem", "conv_head"), ("conv_head", "stem")])
def test_layers_stand_in_the_networks_order(ledger: Ledger, order: tuple[str, ...]) -> None:
    """From first to last, however their names sort."""
    number = experiment_id(ledger, "study")
    rows, about = places(ledger, number), outline(ledger, number)
    for found in profiles(rows, about, ("relative",), order):
        assert tuple(value.layer for value in found.layers) == order


def test_before_and_after_are_paired(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """The interval is that of the differences within runs, not of two means."""
    found = json.loads(shown(capsys, "--json", "--measure", "separability"))
    head = profile(found, "separability", 1)["conv_head"]
    differences = [after - before for before, after in zip(BEFORE, AFTER[1], strict=True)]
    assert head["mean"] == pytest.approx(sum(differences) / 3)
    wanted = stats.t.interval(0.95, 2, head["mean"], stats.sem(differences))
    assert head["interval"] == pytest.approx(list(wanted))
    assert head["before"]["mean"] == pytest.approx(sum(BEFORE) / 3)
    assert {one["measure"] for one in found["measures"]} == {"separability"}


def test_what_a_run_grew_has_no_before(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Its values after the run are shown, and no difference is made up."""
    found = json.loads(shown(capsys, "--json", "--measure", "separability"))
    grown = profile(found, "separability", 1)["grown"]
    assert grown["after"]["mean"] == pytest.approx(sum(AFTER[1]) / 3)
    assert grown["mean"] is None and grown["interval"] is None and "before" not in grown
    line = next(
        line
        for line in shown(capsys, "--measure", "separability").splitlines()
        if line.startswith("grown")
    )
    assert line.split() == ["grown", "-", "0.643", "-", "-", "0.880", "-"]


def test_a_line_per_layer(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """In the network's order; a layer that has no such measure is not shown or a dash."""
    lines = shown(capsys, "--measure", "relative").splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("stem", "conv_", "cla"))] == [
        "stem",
        "conv_head",
    ]
    assert "level=1" in lines[4] and "level=2" in lines[4]
    assert "0.200 [-0.048, 0.448]" in "\n".join(lines)
    assert "runs: r1-r6" in lines


def test_what_is_not_there_is_said(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """A measure nobody knows is an error with the closest; one nobody took is an empty answer."""
    assert main(["changes", "study", "--measure", "relatve"]) == 2
    assert "Did you mean 'relative'?" in capsys.readouterr().err
    assert "no run has measured changes" in shown(capsys, "--measure", "probe")


SOURCE = """
experiment: source
job: finetune
model: {name: mini8, weights: none}
layers: "R(1-8)"
target: {dataset: digits, decode_size: 16}
train: {steps: 10, batch_size: 10, lr: 0.1}
seed: SEED
"""
ADAPTED = (
    SOURCE.replace("source", "adapted")
    .replace("weights: none", "weights: {run: r1}")
    .replace("R(1-8)", "FT(1-7)R(8)")
)
CHANGED = """
experiment: changed
job: changes
model: {name: mini8, weights: {run: BEFORE}}
after: {run: r3}
target: {dataset: digits, decode_size: 16}
"""


def test_a_comparison_with_other_weights_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing was frozen the run itself cannot see it; the ledger knows."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    opened = new_ledger(tmp_path)
    specs = (
        SOURCE.replace("SEED", "1"),
        SOURCE.replace("SEED", "2"),
        ADAPTED.replace("SEED", "1"),
        CHANGED.replace("BEFORE", "r1"),
        CHANGED.replace("BEFORE", "r2").replace("changed", "mistaken"),
    )
    for text in specs:
        planned = make_plan(
            parse(text, "s.yaml"), Path("/"), device_kind="cpu",
            producers=lambda text: producers(opened, text),
        )  # fmt: skip
        enqueue(opened, planned)
    for run in range(1, 6):
        complete(opened, run, {"change/relative_conv1": 0.1})
    assert main(["changes", "changed"]) == 0
    assert "started from" not in capsys.readouterr().out
    assert main(["changes", "mistaken"]) == 0
    assert "r5 compares r3 with r2, but it started from r1" in capsys.readouterr().out
    assert main(["changes", "mistaken", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["doubts"]) == 1
    opened.close()
