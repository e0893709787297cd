"""``ftd summary`` and ``ftd export`` on a real ledger: every place counted, every number traced."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftd.cli.main import main
from ftd.ledger.db import Ledger
from ftd.ledger.models import Run
from ftd.ledger.wishes import Wish, wish
from tests.finished import complete, fail
from tests.ledgers import enqueue, new_ledger, plan

SCORES = {1: 0.50, 2: 0.52, 3: 0.57, 4: 0.60, 5: 0.65, 6: 0.68}  # two levels x three replicates


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A ledger in the home that commands use; one experiment with levels 1 and 2, 3 replicates."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    opened = new_ledger(tmp_path)
    enqueue(opened, plan(levels=(1, 2), replicates=3))
    yield opened
    opened.close()


def finish(ledger: Ledger, *runs: int) -> None:
    """Let runs be done with their scores."""
    for run in runs:
        complete(ledger, run, {"test/score": SCORES[run], "val/score": 0.9})


def summary(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    """The object that ``ftd summary study --json`` prints."""
    capsys.readouterr()
    assert main(["summary", "study", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def text(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What ``ftd summary study`` prints for people."""
    capsys.readouterr()
    assert main(["summary", "study", *options]) == 0
    return capsys.readouterr().out


def test_levels_and_differences(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Means, spreads and the paired difference are those of the runs that are named."""
    finish(ledger, *SCORES)
    found = summary(capsys)
    (factor,) = found["factors"]
    one, two = factor["levels"]
    assert one["level"] == 1 and one["runs"] == ["r1", "r2", "r3"]
    assert one["mean"] == pytest.approx(statistics.mean([0.50, 0.52, 0.57]))
    assert two["sd"] == pytest.approx(statistics.stdev([0.60, 0.65, 0.68]))
    (difference,) = factor["differences"]
    assert difference["pairs"] == [["r4", "r1"], ["r5", "r2"], ["r6", "r3"]]
    assert difference["mean"] == pytest.approx(statistics.mean([0.10, 0.13, 0.11]))
    low, high = difference["interval"]
    assert low < difference["mean"] < high and difference["confidence"] == 0.95
    assert found["absent"] == {} and found["n"] == found["planned"] == 6
    assert "+0." in text(capsys)


def test_no_interval_from_two_pairs(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """With one replicate unfinished, two pairs remain: a mean, and no interval."""
    finish(ledger, 1, 2, 3, 4, 5)
    (difference,) = summary(capsys)["factors"][0]["differences"]
    assert (difference["n"], difference["interval"]) == (2, None)
    assert difference["possible_pairs"] == 3
    assert "no interval from 2 pairs" in text(capsys)


def test_missing_places_are_counted_with_their_reasons(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queued, failed and cancelled places, and done ones without the metric, all show up."""
    finish(ledger, 1, 4)
    fail(ledger, 2, "loss is not defined")
    wish(ledger, [3], Wish.CANCEL, who="ann")
    complete(ledger, 5, {"val/score": 0.1})
    found = summary(capsys)
    assert found["absent"] == {
        "failed: loss is not defined": 1,
        "cancelled": 1,
        "done, without test/score": 1,
        "queued": 1,
    }
    assert found["n"] + sum(found["absent"].values()) == found["planned"]
    shown = text(capsys)
    assert "loss is not defined" in shown
    assert "1 failed, 1 cancelled" in shown
    assert "1 of 3" in shown


def test_diverged_and_approximate_runs_stay_in_and_are_flagged(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """A diverged run is a result: it is in the mean, and its flag stands beside it."""
    finish(ledger, 1, 2, 4, 5, 6)
    complete(ledger, 3, {"test/score": 0.1}, "diverged")
    with ledger.transaction():
        ledger.write(Run.update(approximate="other CPU").where(Run.id == 4))
    found = summary(capsys)
    one, two = found["factors"][0]["levels"]
    assert one["n"] == 3 and one["flags"] == {"diverged": 1}
    assert one["mean"] == pytest.approx((0.50 + 0.52 + 0.1) / 3)
    assert two["flags"] == {"approximate": 1}
    assert "1 diverged" in text(capsys)


def test_another_metric_and_an_unknown_one(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """--metric chooses; a metric nobody has is an error that names the ones there are."""
    finish(ledger, *SCORES)
    assert summary(capsys, "--metric", "val/score")["mean"] == 0.9
    assert main(["summary", "study", "--metric", "test/scroe"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'test/score'" in said and "val/score" in said


def test_a_summary_before_anything_is_done(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """An experiment without results is shown as such, no error."""
    assert summary(capsys)["absent"] == {"queued": 6}
    assert "0 of 6 places measured" in text(capsys)


def test_runs_behind_each_number(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """--runs names the runs of every row."""
    finish(ledger, *SCORES)
    assert "r1-r3" not in text(capsys)
    assert "r1-r3" in text(capsys, "--runs")


def test_a_run_shared_by_two_places_counts_at_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Levels that ask the same question share runs; their difference is 0 and says why."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    ledger = new_ledger(tmp_path)
    shared = plan(levels=(1, 1), replicates=3)
    enqueue(ledger, shared)
    for run in (1, 2, 3):
        complete(ledger, run, {"test/score": 0.5 + run / 100})
    ledger.close()
    found = summary(capsys)
    assert found["planned"] == 6 and len(found["runs"]) == 3


def test_export_has_a_row_per_place(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """CSV and JSON say the same: factors and metrics as columns, states of unfinished places."""
    finish(ledger, 1, 2)
    fail(ledger, 3, 'bad, "very" bad')
    target = tmp_path / "out.csv"
    assert main(["export", "study", "--output", str(target)]) == 0
    with target.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    capsys.readouterr()
    assert main(["export", "study", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert len(rows) == len(plain) == 6
    assert [row["run"] for row in rows] == [row["run"] for row in plain]
    assert float(rows[0]["test/score"]) == plain[0]["test/score"] == 0.50
    assert rows[0]["level"] == "1" and plain[3]["level"] == 2
    assert rows[2]["error"] == 'bad, "very" bad' and rows[2]["test/score"] == ""
    assert plain[5]["state"] == "queued" and plain[5]["test/score"] is None


def test_export_to_a_folder_that_is_not_there(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be written is the user's error, in one line."""
    assert main(["export", "study", "--output", "/nowhere/x.csv"]) == 2
    assert "cannot write /nowhere/x.csv" in capsys.readouterr().err
