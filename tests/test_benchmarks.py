"""The benchmarks run and give figures; how fast things are is not for tests to say."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.__main__ import BENCHMARKS, main, run
from benchmarks.cost import BARE, Cost, alternated, of_command
from benchmarks.figures import Figure, Goal


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_gives_figures(name: str) -> None:
    """Each benchmark, at a tiny size, ends with finite figures under distinct names."""
    figures = run(name, small=True)

    assert figures
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert figure.values
        assert all(math.isfinite(value) and value >= 0 for value in figure.values)


def test_the_figures_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` prints machine, load and every value of the benchmarks that were named."""
    assert main(["help", "--small", "--json"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert "cores" in printed["machine"]
    assert list(printed["benchmarks"]) == ["help"]
    for figure in printed["benchmarks"]["help"]["figures"]:
        assert figure["low"] <= figure["median"] <= figure["high"]
        assert len(figure["values"]) == 2


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is no benchmark ends with exit status 2 and the names there are."""
    assert main(["hepl"]) == 2
    assert "enqueue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal(2.0), "reached"),
        (Goal(1.9), "missed"),
        (Goal(2.0, at_least=True), "reached"),
        (Goal(2.1, at_least=True), "missed"),
        (None, ""),
    ],
)
def test_the_median_is_held_against_the_goal(goal: Goal | None, verdict: str) -> None:
    """The verdict goes by the median, not by the mean nor by the extremes."""
    assert Figure("ratio", "x", [9.0, 2.0, 1.0], goal).verdict == verdict


def test_subjects_are_measured_in_turn() -> None:
    """Every round measures all subjects once, every other one in reverse order."""
    order: list[str] = []

    def subject(name: str) -> Cost:
        order.append(name)
        return Cost(1.0, 1.0)

    found = alternated({"a": lambda: subject("a"), "b": lambda: subject("b")}, 3)

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(costs) for name, costs in found.items()} == {"a": 3, "b": 3}


def test_a_command_costs_cpu_time_of_its_own() -> None:
    """A child's CPU time is counted, and a command that fails is an error with what it said."""
    assert of_command(BARE).cpu_s > 0
    with pytest.raises(RuntimeError, match="no such day"):
        of_command((BARE[0], "-c", "import sys; sys.exit('no such day')"))
