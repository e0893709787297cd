"""Orders of targets by several measures, how they agree, and what ``ftd distances`` shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ftd.cli.main import main
from ftd.ledger.places import PlaceRow
from ftd.ledger.rows import RunRow
from ftd.metric_names import best, smaller_is_better
from ftd.states import RunState
from ftd.stats.agreement import kendall_tau, ranks
from ftd.stats.ordering import agreement, orderings, saturated, target_factors
from tests.homes import LiveHome

VALUES = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=20)


# --- the numbers ------------------------------------------------------------------------------


@given(VALUES)
def test_tau_and_ranks_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    """With ties in either list."""
    first, second = ([float(value) for value in values] for values in zip(*pairs, strict=True))
    wanted = scipy.stats.kendalltau(first, second).statistic
    found = kendall_tau(first, second)
    assert math.isnan(wanted) if found is None else found == pytest.approx(wanted)
    assert ranks(first) == scipy.stats.rankdata(first).tolist()


def test_tau_by_hand() -> None:
    """The same order, the opposite, and one pair exchanged of six."""
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 1], [1, 2]) is None


CHU = {  # Chu et al. 2016, table 2: cosine, MMD, accuracies of a linear SVM and of a small CNN
    "Yosinski": (0.003, 2.3, 0.573, 0.510),
    "Caltech-256": (0.071, 10.6, 0.714, 0.690),
    "SUN397": (0.194, 17.8, 0.815, 0.764),
    "MIT-Indoor": (0.307, 23.9, 0.900, 0.845),
    "CUB-200": (0.358, 37.2, 0.929, 0.865),
    "Coral": (0.455, 38.7, 0.973, 0.994),
    "Plankton": (0.534, 39.1, 0.972, 0.997),
}
NAMES = ("cosine", "mmd", "svm_accuracy", "cnn_accuracy")


def row(
    cell: int,
    replicate: int,
    factors: Mapping[str, Any],
    metrics: Mapping[str, float],
    state: RunState = RunState.DONE,
) -> PlaceRow:
    """A place whose run has the number 10 cell + replicate."""
    run = RunRow(
        id=10 * cell + replicate, experiments=("far",), job="distance", state=state,
        factors=factors, cell=cell, replicate=replicate, attempts=1, cost_actual_s=1.0,
        cost_alone_s=1.0, metrics=metrics, primary_metric="distance/cosine", flags=(),
        state_sha256=None, approximate=None, error=None, created_at=0.0, ended_at=None,
    )  # fmt: skip
    return PlaceRow(cell, replicate, factors, run)


def chu(scale: float = 1.0) -> list[PlaceRow]:
    """The table as runs."""
    return [
        row(
            cell,
            1,
            {"target": name},
            {f"distance/{n}": v for n, v in zip(NAMES, values, strict=True)}
            | {"distance/cosine_std": 0.01 * scale, "data/num_per_side": 100.0},
        )
        for cell, (name, values) in enumerate(CHU.items(), start=1)
    ]


def test_the_published_distances() -> None:
    """Three of the four measures order alike; the SVM exchanges the last two, near certainty."""
    (found,) = orderings(chu(), ["target"])
    assert found.ranks["distance/cosine"] == (1, 2, 3, 4, 5, 6, 7)
    assert found.ranks["distance/svm_accuracy"] == (1, 2, 3, 4, 5, 7, 6)
    assert found.taus["distance/cosine", "distance/mmd"] == 1
    assert found.taus["distance/mmd", "distance/cnn_accuracy"] == 1
    assert found.taus["distance/mmd", "distance/svm_accuracy"] == pytest.approx(19 / 21)
    assert saturated([found]) == ["distance/cnn_accuracy"]
    assert found.targets[0].readings["distance/cosine"].half_width == pytest.approx(0.0196)


def test_settings_are_ordered_apart() -> None:
    """Only targets that differ in nothing else are compared; tau is the mean over settings."""
    rows = []
    for cell, (layer, target, one, other) in enumerate(
        [("fc6", "a", 1, 5), ("fc6", "b", 2, 6), ("fc7", "a", 2, 8), ("fc7", "b", 1, 9)], start=1
    ):
        factors = {"features.layer": layer, "target": target}
        rows.append(row(cell, 1, factors, {"distance/mmd": one, "distance/cosine": other}))
    found = orderings(rows, target_factors(rows))
    assert [one.setting for one in found] == [{"features.layer": "fc6"}, {"features.layer": "fc7"}]
    assert agreement(found) == {("distance/mmd", "distance/cosine"): (0, 2)}
    assert len(orderings(rows, ["target", "features.layer"])) == 1


def test_replicates_give_the_interval() -> None:
    """From three on Student's t over them, else the spread over halves of the images."""

    def half_width(values: Sequence[float]) -> float:
        rows = [
            row(1, number, {}, {"distance/mmd": value, "distance/mmd_std": 0.5})
            for number, value in enumerate(values, start=1)
        ]
        (found,) = orderings(rows, [])
        return found.targets[0].readings["distance/mmd"].half_width

    assert half_width([4.0]) == pytest.approx(1.96 * 0.5)
    assert half_width([4.0, 9.0]) == pytest.approx(1.96 * 0.5 / math.sqrt(2))
    low, high = scipy.stats.t.interval(0.95, 2, loc=2, scale=1 / math.sqrt(3))
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx((high - low) / 2)


def test_what_is_missing_has_no_rank() -> None:
    """Targets that a measure says nothing about are left out of its order alone."""
    rows = [
        row(1, 1, {"target": "a"}, {"distance/mmd": 3.0, "transfer/leep": -2.0}),
        row(2, 1, {"target": "b"}, {"distance/mmd": 2.0}),
        row(3, 1, {"target": "c"}, {}, state=RunState.QUEUED),
        row(4, 1, {"target": "d"}, {"distance/mmd": 1.0, "transfer/leep": -1.0}),
    ]
    (found,) = orderings(rows, ["target"])
    assert found.ranks == {"distance/mmd": (3, 2, None, 1), "transfer/leep": (2, None, None, 1)}
    assert found.taus["distance/mmd", "transfer/leep"] == 1


def test_nearer_is_better() -> None:
    """The direction of distances and of transferability scores, for whoever chooses by them."""
    assert smaller_is_better("distance/cosine") and not smaller_is_better("transfer/logme")
    assert best([0.3, 0.1, 0.2], "distance/mmd") == 1
    assert best([-0.3, -0.1, -0.2], "transfer/leep") == 1


# --- the command ------------------------------------------------------------------------------

STUDY = """
experiment: far-and-near
job: distance
model: {name: mini8, weights: none}
source: {dataset: digits, decode_size: 28, val_per_class: 1, classes: {only: ["0", "1"]}}
target: {dataset: digits, decode_size: 28, val_per_class: 1}
measures: [cosine, mmd, svm]
num_images: 30
repeats: 2
factors:
  target:
    - {name: zeros, set: {target.classes.only: ["0", "6"]}}
    - {name: ones, set: {target.classes.only: ["1", "7"]}}
"""


def test_from_spec_to_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a real home are ordered; a person reads values, ranks and agreement."""
    home = LiveHome(tmp_path / "home")
    home.enqueue(STUDY)
    monkeypatch.setenv("FTD_HOME", str(home.root))
    assert main(["distances", "far-and-near"]) == 0
    assert "no run has measured a distance yet" in capsys.readouterr().out
    assert home.finish() == 0, home.log()
    assert main(["distances", "far-and-near"]) == 0
    shown = capsys.readouterr().out
    assert "target=zeros" in shown and "Kendall's tau" in shown and "svm_accuracy" in shown
    assert main(["distances", "far-and-near", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (ordering,) = told["orderings"]
    metrics = home.runs()[0]["metrics"]
    first = ordering["targets"][0]
    assert first["runs"] == ["r1"]
    cosine = first["measures"]["distance/cosine"]
    assert cosine["value"] == metrics["distance/cosine"] and cosine["rank"] in (1, 2)
    taus = {tuple(one["measures"]): one["tau"] for one in told["agreement"]}
    assert taus["distance/cosine", "distance/mmd"] in (-1, 1)
    assert main(["distances", "far-and-near", "--of", "targte"]) == 2
    assert "Did you mean 'target'?" in capsys.readouterr().err
