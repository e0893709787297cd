"""Tuned parameters: chosen on validation images inside every cell, never compared."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.cli.main import main
from ftd.errors import SpecError
from ftd.layout import Home
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.models import Attempt
from ftd.metric_names import best, smaller_is_better
from ftd.outline import Tuning
from ftd.planning.plan import Plan, make_plan
from ftd.spec.experiment import parse
from ftd.stats.selection import Choice, Trial, choices
from tests.finished import complete, fail
from tests.homes import LiveHome

HEAD = "experiment: trial\njob: drill\n"
GRID = "tune: {over: {noise: [0, 0.1, 0.2]}, select: val/score}\n"

Capture = pytest.CaptureFixture[str]


def planned(text: str) -> Plan:
    """The plan of a drill's spec."""
    return make_plan(parse(HEAD + text, "s.yaml"), Path("/"), device_kind="cpu")


# --- planning


def test_every_cell_gets_the_same_grid() -> None:
    """Each candidate is a run at each cell and replicate; factors are told apart from it."""
    text = (
        "factors: {score: [1, 2]}\nreplicates: 2\n"
        "tune:\n  select: val/score\n  over:\n    noise: ['1e-1', 0.2]\n"
        "    size: [{name: small, set: {width: 4}}, {name: long, set: {width: 8, steps: 5}}]\n"
    )
    plan = planned(text)
    assert len(plan.places) == len(plan.runs) == 2 * 2 * 4
    assert plan.cells == ({"score": 1.0}, {"score": 2.0}) and plan.candidates == 4
    grid = [{"noise": noise, "size": size} for noise in (0.1, 0.2) for size in ("small", "long")]
    for cell in (0, 1):
        for replicate in (0, 1):
            here = [p for p in plan.places if (p.cell, p.replicate) == (cell, replicate)]
            assert [place.candidate for place in here] == [0, 1, 2, 3]
            assert [place.tuned for place in here] == grid
    params = {run.key: run.params for run in plan.runs}
    here = [params[p.run_key] for p in plan.places if (p.cell, p.replicate) == (0, 0)]
    assert [(one["noise"], one["width"], one["steps"]) for one in here] == [
        (0.1, 4, 10), (0.1, 8, 5), (0.2, 4, 10), (0.2, 8, 5),
    ]  # fmt: skip


def test_a_tuned_run_is_the_run_of_the_plain_question() -> None:
    """Tuning adds no identity of its own: a candidate equals the run with that value."""
    tuned = {run.key for run in planned(GRID).runs}
    plain = {run.key for run in planned("factors: {noise: [0, 0.1, 0.2]}").runs}
    assert tuned == plain


def test_another_candidate_leaves_the_other_keys_alone() -> None:
    """A wider grid keeps every run there was."""
    before = {run.key for run in planned("factors: {score: [1, 2]}\n" + GRID).runs}
    wider = GRID.replace("0.2]", "0.2, 0.4]")
    after = {run.key for run in planned("factors: {score: [1, 2]}\n" + wider).runs}
    assert before < after and len(after) - len(before) == 2


def test_only_numbers_of_three_levels_have_edges() -> None:
    """The outline keeps the smallest and largest level as shown, also of named ones."""
    text = """
tune:
  select: val/score
  over:
    noise: [0.2, {name: none, value: 0}, 0.1]
    steps: [3, 4]
    fail_with: [error, refuse, memory]
"""
    tuning = planned(text).outline.tuning
    assert tuning == Tuning("val/score", "replicate", {"noise": ("none", 0.2)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tune: {over: {noise: [1]}}", ["s.yaml:3: tune.select", "'select' is missing"]),
        ("tune: {select: val/score}", ["s.yaml:3: tune.over", "'over' is missing"]),
        ("tune: {over: {}, select: val/x}", ["s.yaml:3: tune.over", "at least 1"]),
        ("tune:\n  over: {noise: []}\n  select: val/x", ["s.yaml:4: tune.over.noise"]),
        (
            "tune:\n  over: {noise: [1]}\n  select: test/score",
            ["s.yaml:5: tune.select", "test images", "take a metric of the validation images"],
        ),
        ("tune: {over: {noise: [1]}, select: top1}", ["tune.select", "write val/NAME"]),
        ("tune: {over: {noise: [1]}, select: train/nll}", ["tune.select", "write val/NAME"]),
        (
            "tune:\n  over: {noise: [1]}\n  select: val/x\n  per: run",
            ["s.yaml:6: tune.per", "Allowed: replicate, cell"],
        ),
        (
            "factors: {noise: [1, 2]}\ntune:\n  over:\n    noise: [3]\n  select: val/x",
            ["s.yaml:6: tune.over.noise", "is a factor"],
        ),
        (
            "factors: {a: [{name: x, set: {noise: 1}}]}\n"
            "tune:\n  over:\n    noise: [3]\n  select: val/x",
            ["s.yaml:6: tune.over.noise", "set twice", "factor a", "tuned noise"],
        ),
        (
            "tune:\n  over:\n    niose: [3]\n  select: val/x",
            ["s.yaml:5: tune.over.niose", "Did you mean 'noise'?"],
        ),
        (
            "tune:\n  over:\n    noise:\n    - 3\n    - much\n  select: val/x",
            ["s.yaml:7: tune.over.noise[1]", "not much"],
        ),
        (
            "tune:\n  over:\n    noise:\n    - 1\n    - 1.0\n  select: val/x",
            ["s.yaml:7: tune.over.noise[1]", "the same as another one"],
        ),
        (
            f"tune:\n  over: {{noise: {list(range(101))}, score: {list(range(101))}}}\n"
            "  select: val/x",
            ["s.yaml:4: tune.over", "10,201 candidates"],
        ),
    ],
)
def test_a_bad_grid_is_refused(text: str, expected: list[str]) -> None:
    """The error names the line and why; test metrics never choose."""
    with pytest.raises(SpecError) as caught:
        planned(text)
    assert [part for part in expected if part not in str(caught.value)] == []


def test_setting_a_tuned_value_is_refused() -> None:
    """The value would count nowhere; setting the grid works."""
    with pytest.raises(SpecError, match=r"noise is tuned.*tune\.over\.noise=\[\.\.\.\]"):
        parse(HEAD + GRID, "s.yaml", {"noise": "0.3"})
    assert parse(HEAD + GRID, "s.yaml", {"tune.select": "val/nll"}).tune.select == "val/nll"  # type: ignore[union-attr]


# --- choosing


@pytest.mark.parametrize("name", ["val/nll", "val/loss", "val/brier", "val/ece"])
def test_of_losses_the_smaller_is_better(name: str) -> None:
    """Losses, errors and calibration errors are minimised, everything else maximised."""
    assert smaller_is_better(name) and best([2.0, 1.0, 3.0], name) == 1
    assert not smaller_is_better("val/top1") and best([2.0, 1.0, 3.0], "val/top1") == 2


def test_equal_ones_and_numbers_that_are_none() -> None:
    """Of equal values the first counts; one that is no number loses in either direction."""
    assert best([1.0, 1.0], "val/top1") == best([1.0, 1.0], "val/nll") == 0
    assert best([math.nan, -1e9], "val/top1") == best([math.nan, 1e9], "val/nll") == 1


def trials(scores: dict[tuple[int, int], list[float | None]]) -> list[Trial]:
    """Trials of cell 0, 1, ... and replicate: candidate c has the level c of `lr`."""
    return [
        Trial(cell * 1000 + replicate * 100 + c, cell, replicate, c, {"lr": c}, score,
              "" if score is not None else "queued")
        for (cell, replicate), some in scores.items()
        for c, score in enumerate(some)
    ]  # fmt: skip


def chosen(found: list[Choice]) -> list[int | None]:
    """The number of each chosen candidate."""
    return [None if one.chosen is None else one.chosen.candidate for one in found]


SCORES = st.integers(1, 4).flatmap(
    lambda number: st.lists(
        st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=number, max_size=number),
        min_size=1,
        max_size=4,
    )
)


@given(SCORES, st.sampled_from(["val/top1", "val/nll"]))
def test_choices_are_those_of_brute_force(scores: list[list[float]], name: str) -> None:
    """Per replicate the best of each, per cell the best mean over replicates; the first of ties."""
    sign = -1 if name == "val/nll" else 1
    made = trials({(0, replicate): list(some) for replicate, some in enumerate(scores)})
    expected = [some.index(sign * max(sign * value for value in some)) for some in scores]
    assert chosen(choices(made, Tuning(name, "replicate"))) == expected
    means = [sign * statistics.fmean(column) for column in zip(*scores, strict=True)]
    assert chosen(choices(made, Tuning(name, "cell"))) == [means.index(max(means))] * len(scores)


def test_replicates_and_cells_may_choose_differently() -> None:
    """A spec that says per: cell gets another answer, and one cell never looks at another."""
    made = trials({(0, 0): [0.9, 0.8], (0, 1): [0.1, 0.8], (1, 0): [1.0, 0.0]})
    assert chosen(choices(made, Tuning("val/top1", "replicate"))) == [0, 1, 0]
    assert chosen(choices(made, Tuning("val/top1", "cell"))) == [1, 1, 0]


def test_nothing_is_chosen_before_all_candidates_are_done() -> None:
    """The reason counts how many are missing; other places are decided all the same."""
    made = trials({(0, 0): [0.9, None, None], (0, 1): [0.2, 0.1, 0.1]})
    first, second = choices(made, Tuning("val/top1", "replicate"))
    assert first.chosen is None and second.chosen is not None
    assert first.absent == "queued, 2 of 3 candidates have no val/top1"
    both = choices(made, Tuning("val/top1", "cell"))
    assert chosen(both) == [None, None] and "2 of 6" in both[1].absent


@pytest.mark.parametrize(
    ("scores", "at_edge"),
    [
        ([0.9, 0.5, 0.1], ("lr",)),
        ([0.1, 0.5, 0.9], ("lr",)),
        ([0.1, 0.9, 0.5], ()),
        ([0.9, 0.9, 0.1], ()),  # the inner one is as good: no reason to widen
        ([0.5, 0.5, 0.5], ()),
    ],
)
def test_a_choice_on_the_edge_of_the_grid(
    scores: list[float | None], at_edge: tuple[str, ...]
) -> None:
    """It is one where the smallest or largest level is better than every other."""
    (found,) = choices(trials({(0, 0): scores}), Tuning("val/top1", "replicate", {"lr": (0, 2)}))
    assert found.at_edge == at_edge


# --- in a ledger

SPEC = """
experiment: study
job: drill
factors: {score: [1, 2]}
tune: {over: {noise: [0, 0.1, 0.2]}, select: val/score}
replicates: 3
"""
# val and test of the candidates at noise 0, 0.1, 0.2
VALUES = {0: [(0.5, 0.1), (0.7, 0.2), (0.6, 0.9)], 1: [(0.1, 0.9), (0.2, 0.8), (0.3, 0.7)]}


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger of a home in which SPEC was enqueued: runs r1 to r18."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert main(["enqueue", str(tmp_path / "spec.yaml")]) == 0
    opened = open_ledger(Home(tmp_path / "home"))
    yield opened
    opened.close()


def parsed(capsys: Capture, *arguments: str) -> Any:
    """The object that a command prints with --json."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def run_of(cell: int, replicate: int, candidate: int) -> int:
    """Runs are numbered by cell, candidate and replicate."""
    return 1 + cell * 9 + candidate * 3 + replicate


def finish(ledger: Ledger, *but: int) -> None:
    """Let all runs be done with their values, except some."""
    for cell, values in VALUES.items():
        for candidate, (val, test) in enumerate(values):
            for replicate in range(3):
                run = run_of(cell, replicate, candidate)
                if run not in but:
                    shift = replicate / 100
                    complete(ledger, run, {"val/score": val + shift, "test/score": test + shift})


def test_the_chosen_candidate_speaks_for_its_place(ledger: Ledger, capsys: Capture) -> None:
    """Its test value counts, however good others' are; every candidate's run can be traced."""
    finish(ledger)
    found = parsed(capsys, "summary", "study")
    assert [cell["mean"] for cell in found["cells"]] == pytest.approx([0.21, 0.71])
    assert found["cells"][0]["runs"] == [f"r{run_of(0, replicate, 1)}" for replicate in range(3)]
    assert found["planned"] == found["measured"] == 6
    (difference,) = found["factors"][0]["differences"]
    assert difference["mean"] == pytest.approx(0.5) and difference["n"] == 3
    tuned = found["tuned"]
    assert (tuned["select"], tuned["per"]) == ("val/score", "replicate")
    first, last = tuned["choices"][0], tuned["choices"][-1]
    assert first["chosen"] == {
        "run": f"r{run_of(0, 0, 1)}", "candidate": 1, "tuned": {"noise": 0.1}, "score": 0.7,
    }  # fmt: skip
    assert [one["run"] for one in first["candidates"]] == ["r1", "r4", "r7"]
    assert first["at_edge"] == [] and last["at_edge"] == ["noise"]
    capsys.readouterr()
    assert main(["summary", "study"]) == 0
    shown = capsys.readouterr().out
    assert "chosen by val/score, of 3 candidates: each replicate for itself" in shown
    assert "in 1 of 2 cells the best noise is the smallest or largest of its grid" in shown
    assert "cost: mean device time of a place, of all its candidates together" in shown
    assert "0.1 (3x)" in shown and "noise: 3 of 3" in shown


def test_a_place_without_all_candidates_is_absent(ledger: Ledger, capsys: Capture) -> None:
    """It says why and how many are missing; a diverged candidate counts with what it got."""
    waiting, failing, diverging = run_of(0, 0, 2), run_of(0, 1, 0), run_of(1, 0, 2)
    finish(ledger, waiting, failing, diverging)
    fail(ledger, failing, "out of luck")
    complete(ledger, diverging, {"val/score": 0.05, "test/score": 0.0}, "diverged")
    found = parsed(capsys, "summary", "study")
    assert found["absent"] == {
        "queued, 1 of 3 candidates have no val/score": 1,
        "failed: out of luck, 1 of 3 candidates have no val/score": 1,
    }
    assert found["tuned"]["choices"][0]["chosen"] is None
    assert found["tuned"]["choices"][3]["chosen"]["candidate"] == 1
    assert found["flags"] == {}


def test_choosing_costs_all_candidates(ledger: Ledger, capsys: Capture) -> None:
    """The cost of a place is the device time of trying every candidate."""
    finish(ledger)
    with ledger.transaction():
        ledger.write(Attempt.update(started_at=100, ended_at=100 + Attempt.run))
    first = parsed(capsys, "summary", "study")["cells"][0]
    seconds = [run_of(0, replicate, candidate) for replicate in range(3) for candidate in range(3)]
    assert first["cost_actual_s"] == pytest.approx(sum(seconds) / 3)


def test_export_says_which_candidate_is_chosen(ledger: Ledger, capsys: Capture) -> None:
    """Every candidate has a row, with its tuned levels as columns."""
    finish(ledger, run_of(1, 2, 0))
    capsys.readouterr()
    assert main(["export", "study"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 18
    assert [row["chosen"] for row in rows[:3]] == ["False", "True", "False"]
    assert [row["noise"] for row in rows[:3]] == ["0.0", "0.1", "0.2"]
    assert [row["chosen"] for row in rows[-3:]] == ["", "", ""]


def test_a_dry_run_names_every_candidate(ledger: Ledger, tmp_path: Path, capsys: Capture) -> None:
    """The number of runs is cells x replicates x candidates, each with what is tuned in it."""
    found = parsed(capsys, "enqueue", str(tmp_path / "spec.yaml"), "--dry-run")
    assert (found["runs"], found["candidates"], found["shared"]) == (18, 3, 18)
    runs = found["cells"][1]["runs"]
    assert [(run["replicate"], run["candidate"], run["tuned"]) for run in runs[:4]] == [
        (0, 0, {"noise": 0.0}), (1, 0, {"noise": 0.0}), (2, 0, {"noise": 0.0}),
        (0, 1, {"noise": 0.1}),
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["enqueue", str(tmp_path / "spec.yaml"), "--dry-run"]) == 0
    assert "2 cells x 3 replicates x 3 candidates = 18 distinct runs" in capsys.readouterr().out


def test_enqueueing_a_wider_grid_runs_the_new_candidates_alone(
    ledger: Ledger, tmp_path: Path, capsys: Capture
) -> None:
    """It is a new revision that shares every run of the narrower one."""
    (tmp_path / "spec.yaml").write_text(SPEC.replace("0.2]", "0.2, 0.4]"))
    found = parsed(capsys, "enqueue", str(tmp_path / "spec.yaml"))
    assert (found["revision"], found["new"], found["shared"]) == (2, 6, 18)


@pytest.mark.parametrize("per", ["replicate", "cell"])
def test_chosen_from_runs_that_ran(tmp_path: Path, per: str) -> None:
    """From the spec to the summary: the candidate best in what its runs recorded is chosen."""
    home = LiveHome(tmp_path / "home")
    spec = (
        "experiment: live\njob: drill\nsteps: 2\nreplicates: 2\nseed: 3\n"
        "tune:\n  over: {noise: [0.1, 0.3], score: [0.50, 0.51, 0.52]}\n"
        f"  select: val/score\n  per: {per}\n"
    )
    home.enqueue(spec)
    assert home.finish() == 0, home.log()
    runs = {run["id"]: run["metrics"]["val/score"] for run in home.runs()}
    tuned = home.json("summary", "live")["tuned"]["choices"]
    assert len(tuned) == 2
    scored = [[runs[one["run"]] for one in place["candidates"]] for place in tuned]
    assert [[one["score"] for one in place["candidates"]] for place in tuned] == scored
    best_of = [some.index(max(some)) for some in scored]
    means = [statistics.fmean(some) for some in zip(*scored, strict=True)]
    wanted = best_of if per == "replicate" else [means.index(max(means))] * 2
    assert [place["chosen"]["candidate"] for place in tuned] == wanted
    assert len(set(best_of)) == 2, "the seeds make replicates disagree, or this shows nothing"
