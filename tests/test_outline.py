"""What a design says beyond its levels: nested factors, units of an interval, blocks, baselines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from ftd.cli.main import main
from ftd.layout import Home
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.models import Membership, Run
from ftd.outline import Outline
from tests.finished import complete

Capture = pytest.CaptureFixture[str]
Value = Callable[[Mapping[str, Any], int], float]  # factors, replicate -> test/score


@pytest.fixture
def summarised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> Iterator[Callable[[str, Value], tuple[Any, str]]]:
    """Enqueues a drill's spec, lets every run give a value, and summarises: object and text."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))

    def summarise(text: str, value: Value) -> tuple[Any, str]:
        spec = tmp_path / "spec.yaml"
        spec.write_text("experiment: study\njob: drill\n" + text)
        assert main(["enqueue", str(spec)]) == 0
        ledger = open_ledger(Home(tmp_path / "home"))
        _finish(ledger, value)
        ledger.close()
        capsys.readouterr()
        assert main(["summary", "study", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(["summary", "study"]) == 0
        return found, capsys.readouterr().out

    yield summarise


def _finish(ledger: Ledger, value: Value) -> None:
    query = Membership.select(
        Membership.run, Membership.factors, Membership.replicate, Run.key
    ).join(Run)
    for row in ledger.rows(query.order_by(Membership.run)):
        complete(ledger, row["run"], {"test/score": value(row["factors"], row["replicate"])})


def factor(found: Any, name: str) -> Any:
    """One factor of a summary."""
    return next(one for one in found["factors"] if one["factor"] == name)


NOISE = [0.01, -0.02, 0.03]  # by replicate


def test_a_nested_factor_is_compared_where_it_exists(summarised: Any) -> None:
    """Its levels and contrasts are inside those cells; the others enter the outer factor alone."""
    found, shown = summarised(
        "factors: {score: [1, 2], width: {levels: [4, 5], when: {score: 2}}}\nreplicates: 3",
        lambda at, replicate: at["score"] + at.get("width", 0) / 10 + NOISE[replicate],
    )
    width = factor(found, "width")
    assert width["nested"] and not factor(found, "score")["nested"]
    assert [(one["level"], one["n"]) for one in width["levels"]] == [(4, 3), (5, 3)]
    (difference,) = width["differences"]
    assert difference["mean"] == pytest.approx(0.1) and difference["n"] == 3
    # each of the two nested cells at score 2 is paired with the one at score 1
    (outer,) = factor(found, "score")["differences"]
    assert outer["mean"] == pytest.approx(1 + 0.45)
    assert (outer["n"], outer["possible_pairs"]) == (3, 6)
    assert found["cells"][0]["factors"] == {"score": 1.0}
    assert "factor width (nested: only in cells where it exists)" in shown


def test_inner_streams_are_averaged_inside_a_unit(summarised: Any) -> None:
    """With {subset: 3, train: 2} there are three independent differences, not six."""
    unit_effect = [0.1, 0.4, 0.2]

    def value(at: Mapping[str, Any], replicate: int) -> float:
        inner = (-1) ** replicate * 0.05  # cancels inside each unit
        return at["score"] * (1 + unit_effect[replicate // 2]) + inner * at["score"]

    found, shown = summarised("factors: {score: [1, 2]}\nreplicates: {subset: 3, train: 2}", value)
    (difference,) = factor(found, "score")["differences"]
    expected = [1 + effect for effect in unit_effect]
    assert difference["n"] == 3 and difference["possible_pairs"] == 6
    assert difference["sd"] == pytest.approx(statistics.stdev(expected))
    wanted = scipy.stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert difference["interval"] == pytest.approx([wanted.low, wanted.high])
    assert found["cells"][0]["n"] == 3 and found["cells"][0]["measured"] == 6
    assert "repetition of the top seed stream" in shown


def test_a_plain_number_counts_every_replicate(summarised: Any) -> None:
    """The same values without nesting have six units."""
    found, shown = summarised(
        "factors: {score: [1, 2]}\nreplicates: 6", lambda at, replicate: at["score"] * replicate
    )
    (difference,) = factor(found, "score")["differences"]
    assert difference["n"] == 6
    assert "those of a replicate are averaged" in shown


def test_levels_of_a_random_factor_are_the_units(summarised: Any) -> None:
    """Replicates at one of its levels are averaged; it has no contrasts of its own."""
    effect = {4: 0.1, 5: 0.5, 6: 0.3}
    found, shown = summarised(
        "factors: {score: [1, 2], width: {levels: [4, 5, 6], role: random}}\nreplicates: 2",
        lambda at, replicate: at["score"] * (1 + effect[at["width"]]) + replicate,
    )
    (difference,) = factor(found, "score")["differences"]
    assert (difference["n"], difference["possible_pairs"]) == (3, 6)
    assert difference["sd"] == pytest.approx(statistics.stdev(1 + e for e in effect.values()))
    width = factor(found, "width")
    assert (width["role"], width["differences"]) == ("random", [])
    assert "random width" in shown and "those of a level of width are averaged" in shown


def test_a_block_is_compared_within_never_across(summarised: Any) -> None:
    """It is shown with its levels and no contrasts; pairs agree in it."""
    found, shown = summarised(
        "factors: {score: [1, 2], width: {levels: [4, 5], role: block}}\nreplicates: 3",
        lambda at, replicate: at["score"] + 10 * at["width"] + NOISE[replicate],
    )
    width = factor(found, "width")
    assert (width["role"], width["differences"], len(width["levels"])) == ("block", [], 2)
    (difference,) = factor(found, "score")["differences"]
    assert difference["mean"] == pytest.approx(1) and difference["n"] == 3
    assert "block width" in shown


def test_contrasts_around_a_baseline(summarised: Any) -> None:
    """Each level against the baseline's, all else at the baseline; no other pairs."""
    found, shown = summarised(
        "factors: {score: [1, 2, 3], width: [4, 5]}\nbaseline: {score: 2, width: 4}\nreplicates: 3",
        lambda at, replicate: at["score"] + at["width"] * 100 + NOISE[replicate],
    )
    assert found["baseline"] == {"score": 2.0, "width": 4}
    score = factor(found, "score")
    assert [(d["level"], d["baseline"], round(d["mean"], 9)) for d in score["differences"]] == [
        (1.0, 2.0, -1), (3.0, 2.0, 1),
    ]  # fmt: skip
    assert [one["mean"] for one in score["levels"]] == pytest.approx(
        [400 + level + statistics.fmean(NOISE) for level in (2, 1, 3)]
    )
    (width,) = factor(found, "width")["differences"]
    assert (width["level"], width["baseline"], round(width["mean"], 9)) == (5, 4, 100)
    assert "each level is compared with the baseline's" in shown


def test_a_factor_off_the_baseline_is_shown_where_it_is(summarised: Any) -> None:
    """It has one level there, and nothing to be compared with."""
    found, _ = summarised(
        "factors: {score: [1, 2], width: {levels: [5], when: {score: 2}}}\nbaseline: {score: 1}\n"
        "replicates: 3",
        lambda at, replicate: at["score"] + NOISE[replicate],
    )
    (level,) = factor(found, "width")["levels"]
    assert (level["level"], level["n"]) == (5, 3) and factor(found, "width")["differences"] == []


def test_an_experiment_of_before_reads_as_a_plain_one() -> None:
    """Ledgers that knew no outlines have none."""
    assert Outline.from_json(None) == Outline()
    assert Outline.from_json(Outline().as_json()) == Outline()
