"""Advice: what is counted as evidence, what follows from it, and when nobody knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ftd.ledger.evidence import RunFacts
from ftd.ledger.places import PlaceRow
from ftd.ledger.rows import RunRow
from ftd.outline import PLAIN, Outline, Tuning
from ftd.states import RunState
from ftd.stats.advice import Question, advise, boundary_points, chu_cell, verdict
from ftd.stats.boundary import Boundary, Point, fit_boundary, why_no_boundary
from ftd.stats.comparisons import Comparison, comparisons
from ftd.stats.known_distances import Distances, distances
from ftd.stats.subjects import Network, Target
from ftd.views.advice_specs import Asked, specs

# --- the boundary -----------------------------------------------------------------------------

DESIGN = [(d, n) for d in (0.1, 0.3, 0.5) for n in (2, 20, 100)]


def points(seed: int, noise: float = 0.01) -> list[Point]:
    """Three targets at three sizes; tuning pays from about 10 images on at distance 0.3."""
    draw = np.random.default_rng(seed)
    return [
        Point(d, n, -0.08 + 0.1 * d + 0.05 * math.log10(n) + noise * draw.normal())
        for d, n in DESIGN
    ]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), distance=st.floats(0, 1), size=st.floats(1, 1000))
def test_the_plane_is_ordinary_least_squares(seed: int, distance: float, size: float) -> None:
    """Coefficients, their covariance and the interval of a mean are statsmodels'."""
    some = points(seed)
    design = np.array([[1, one.distance, math.log10(one.num_per_class)] for one in some])
    wanted = sm.OLS([one.difference for one in some], design).fit()
    found = fit_boundary(some)
    assert [found.constant, found.slope_distance, found.slope_size] == pytest.approx(wanted.params)
    np.testing.assert_allclose(found.covariance, wanted.cov_params(), rtol=1e-7, atol=1e-12)
    place = wanted.get_prediction(np.array([[1, distance, math.log10(size)]]))
    (limits,) = place.conf_int(alpha=0.05)
    interval = found.difference(distance, size)
    assert [interval.low, interval.high] == pytest.approx(limits.tolist())


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), distance=st.floats(0.1, 0.5))
def test_the_ends_of_the_boundarys_interval(seed: int, distance: float) -> None:
    """They are the sizes at which the difference's own interval just reaches 0."""
    found = fit_boundary(points(seed))
    size, limits = found.num_per_class(distance), found.num_per_class_interval(distance)
    assert size is not None and limits is not None and limits.low < size < limits.high
    assert found.difference(distance, limits.low).high == pytest.approx(0, abs=1e-9)
    assert found.difference(distance, limits.high).low == pytest.approx(0, abs=1e-9)


def test_the_interval_holds_what_it_promises() -> None:
    """The true boundary, 10 ** 1 at distance 0.3, is inside for about 95 of 100 noisy sets."""
    inside = 0
    for seed in range(300):
        limits = fit_boundary(points(seed)).num_per_class_interval(0.3)
        assert limits is not None
        inside += limits.low <= 10 <= limits.high
    assert 270 <= inside <= 297


def test_without_a_trend_there_is_no_boundary() -> None:
    """Noise alone has no interval with two ends; where size favours freezing, no number at all."""
    noise = [Point(d, n, 0.1 * (-1) ** index) for index, (d, n) in enumerate(DESIGN)]
    assert fit_boundary(noise).num_per_class_interval(0.3) is None
    falling = [Point(d, n, 1 - math.log10(n) + 0.01 * d**3) for d, n in DESIGN]
    assert fit_boundary(falling).num_per_class(0.3) is None
    assert fit_boundary(falling).num_per_class_interval(0.3) is None
    level = Boundary(1.0, 0.0, 1e-9, ((0.0,) * 3,) * 3, 9, 2, 100)
    assert (
        level.num_per_class(0.3) == 0
        and Boundary(-1.0, 0.0, 1e-9, ((0.0,) * 3,) * 3, 9, 2, 100).num_per_class(0.3) == math.inf
    )


@pytest.mark.parametrize(
    ("some", "says"),
    [
        (points(1)[:3], "3 targets and sizes measured (at least 6); 1 different distances"),
        (points(1)[:6], "2 different distances (at least 3)"),
        ([one for one in points(1) if one.num_per_class == 2] * 2, "1 different numbers of images"),
        (
            [Point(math.log10(n), n, 0.0) for n in (1, 2, 4, 8, 16, 32)],
            "distance and images per class do not vary independently",
        ),
    ],
)
def test_too_little_is_no_boundary(some: list[Point], says: str) -> None:
    """What is missing is named, and nothing is fitted."""
    assert says in why_no_boundary(some)
    with pytest.raises(ValueError, match=r"different|independently"):
        fit_boundary(some)
    assert why_no_boundary(points(1)) == ""


# --- evidence from runs -----------------------------------------------------------------------


def params(layers: str, lr: float = 0.01, per_class: int = 20, **target: Any) -> dict[str, Any]:
    """Resolved parameters of a finetune run, as far as advice reads them."""
    return {
        "model": {"name": "mini8", "weights": {"run": "source", "cell": {}, "checkpoint": None}},
        "layers": layers,
        "target": {"dataset": "digits", "per_class": per_class, "classes": {}} | target,
        "train": {"lr": lr, "epochs": 3},
    }


class Study:
    """An experiment whose runs are added one by one."""

    def __init__(self, outline: Outline = PLAIN) -> None:
        self.outline = outline
        self.places: list[PlaceRow] = []
        self.facts: dict[int, RunFacts] = {}
        self.cells: list[object] = []

    def add(
        self,
        asked: dict[str, Any],
        replicate: int,
        metrics: Mapping[str, float],
        *,
        factors: Mapping[str, Any] | None = None,
        tuned: Mapping[str, Any] | None = None,
        candidate: int = 0,
        source: str = "key",
        size: float | None = 20.0,
    ) -> int:
        """A finished run; its id."""
        number = len(self.places) + 1
        factors = factors or ({"layers": asked["layers"]} if tuned else asked)
        if factors not in self.cells:
            self.cells.append(factors)
        run = RunRow(
            id=number, experiments=("e",), job="finetune", state=RunState.DONE, factors=factors,
            cell=self.cells.index(factors), replicate=replicate, attempts=1, cost_actual_s=1,
            cost_alone_s=1, metrics=metrics, primary_metric="test/top1", flags=(),
            state_sha256=None, approximate=None, error=None, created_at=0, ended_at=1,
        )  # fmt: skip
        place = PlaceRow(run.cell, replicate, factors, run, candidate, tuned or {})
        self.places.append(place)
        inputs = {"weights": {"kind": "run", "run": "r1", "fingerprint": source}}
        self.facts[number] = RunFacts(number, asked, inputs, metrics, (), size)
        return number

    def found(self, seen: set[tuple[int, int]] | None = None) -> list[Comparison]:
        """What the experiment tells."""
        seen = set() if seen is None else seen
        return comparisons(1, self.places, self.outline, self.facts, "test/top1", seen)


FROZEN, TUNED = "F(1-7)R(8)", "FT(1-7)R(8)"


def pairs(study: Study, frozen: Sequence[float], tuned: Sequence[float], **both: Any) -> None:
    """Replicates of both arms."""
    for layers, values in ((FROZEN, frozen), (TUNED, tuned)):
        for replicate, value in enumerate(values):
            study.add(params(layers, **both), replicate, {"test/top1": value})


def test_runs_that_differ_in_freezing_alone_are_pairs() -> None:
    """By replicate: the interval is that of the differences, and the runs are named."""
    study = Study()
    pairs(study, [0.5, 0.6, 0.7], [0.6, 0.7, 0.83])
    (found,) = study.found()
    assert found.difference.mean == pytest.approx(0.11) and found.difference.n == 3
    assert found.interval is not None and found.interval.low > 0
    assert found.pairs == ((4, 1), (5, 2), (6, 3))
    assert (found.layers, found.num_copied, found.num_per_class) == (TUNED, 7, 20)
    assert str(found.network) == "mini8, source" and found.target.name == "digits"
    assert not found.chosen


def test_what_differs_in_more_is_no_pair() -> None:
    """Another learning rate, size, source net or depth, a mixture, or a missing arm."""
    study = Study()
    base = {"test/top1": 0.5}
    study.add(params(FROZEN), 0, base)
    study.add(params(TUNED, lr=0.1), 0, base)
    study.add(params(TUNED, per_class=40), 0, base, size=40)
    study.add(params(TUNED), 0, base, source="another")
    study.add(params(TUNED), 1, base)
    study.add(params("FT(1-5)R(6-8)"), 0, base)
    study.add(params("F(1-3)FT(4-7)R(8)"), 0, base)
    study.add(params("R(1-8)"), 0, base)
    study.add(params(TUNED, dataset="elpv"), 0, base)
    assert study.found() == []
    study.add(params(TUNED), 0, {"val/top1": 0.5}, factors={"again": 1})
    assert study.found() == [], "without the metric"
    study.add(params(TUNED), 0, base, factors={"again": 2}, size=None)
    assert study.found() == [], "without a number of images"


def test_each_arm_has_what_validation_chose() -> None:
    """Not what tests best, and not the same learning rate for both."""
    study = Study(Outline(tuning=Tuning("val/top1", "replicate")))
    for layers, best in ((FROZEN, 0.1), (TUNED, 0.01)):
        for replicate in range(2):
            for candidate, lr in enumerate((0.01, 0.1)):
                metrics = {"val/top1": float(lr == best), "test/top1": 0.4 + 0.2 * (lr == 0.01)}
                asked, tuned = params(layers, lr=lr), {"train.lr": lr}
                study.add(asked, replicate, metrics, tuned=tuned, candidate=candidate)
    (found,) = study.found()
    assert found.difference.mean == pytest.approx(0.2) and found.chosen
    assert found.pairs == ((5, 2), (7, 4)), "the tuned at 0.01, the frozen at 0.1"


def test_repetitions_inside_a_unit_count_once() -> None:
    """Three trainings on one subset are one value of the interval."""
    study = Study(Outline(num_inner=3))
    pairs(study, [0.5] * 6, [0.6, 0.6, 0.6, 0.7, 0.8, 0.9])
    (found,) = study.found()
    assert found.difference.n == 2 and found.difference.mean == pytest.approx(0.2)
    assert len(found.pairs) == 6


def test_the_same_runs_count_once() -> None:
    """A revision of an experiment shares its runs; only what is new is told again."""
    study, seen = Study(), set[tuple[int, int]]()
    pairs(study, [0.5, 0.6], [0.6, 0.7])
    assert len(study.found(seen)) == 1
    assert study.found(seen) == []


def test_settings_are_told_apart() -> None:
    """By size and by target; the same ones come together."""
    study = Study()
    pairs(study, [0.5], [0.6])
    pairs(study, [0.5], [0.7], dataset="elpv")
    pairs(study, [0.5], [0.8], classes={"only": ["1", "2"]})
    assert [round(one.difference.mean or 0, 1) for one in study.found()] == [0.1, 0.2, 0.3]
    names = [one.target.name for one in study.found()]
    assert names == ["digits", "elpv", "digits only 1, 2"]


# --- distances --------------------------------------------------------------------------------


def measured(
    run: int, dataset: str, value: float, *, model: str = "mini8", weights: Any = "imagenet",
    layer: str = "7", measure: str = "cosine", source: str = "elpv",
) -> RunFacts:  # fmt: skip
    """A run of the job distance."""
    asked = {
        "model": {"name": model, "weights": weights},
        "features": {"layer": layer, "pooling": {"grid": 1, "by": "mean"}},
        "source": {"dataset": source, "classes": {}},
        "target": {"dataset": dataset, "classes": {}, "per_class": run},
    }
    metrics = {f"distance/{measure}": value, f"distance/{measure}_std": 0.1, "transfer/logme": 1.0}
    return RunFacts(run, asked, {}, metrics, (), None)


def key(dataset: str) -> str:
    """The key of a dataset whose target says nothing else."""
    return Target.of({"dataset": dataset, "classes": {}}).key


def test_distances_that_can_be_compared_come_together() -> None:
    """Means over runs, per target; another source, layer or network is another list."""
    found = distances(
        [
            measured(1, "digits", 0.2), measured(2, "digits", 0.4), measured(3, "mnist5k", 0.1),
            measured(4, "digits", 0.9, layer="5"), measured(5, "digits", 0.9, source="digits"),
            measured(6, "digits", 0.9, weights={"run": "r9"}),
        ]
    )  # fmt: skip
    assert [len(one.by_target) for one in found] == [2, 1, 1, 1]
    first = found[0]
    assert first.by_target[key("digits")] == pytest.approx(0.3)
    assert first.run_ids[key("digits")] == (1, 2)
    assert first.ranked() == [key("mnist5k"), key("digits")]
    assert first.measure == "cosine" and first.source == "elpv"


CHU_TABLE_2 = {  # cosine distances of the paper's targets
    "yosinski": 0.003, "caltech": 0.071, "sun": 0.194, "mit": 0.307, "cub": 0.358, "coral": 0.455,
    "plankton": 0.534,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yosinski", ["freeze", "freeze", "try both", "try both", "tune"]),
        ("sun", ["freeze", "freeze", "try both", "try both", "tune"]),
        ("mit", ["try both", "try both", "tune", "tune", "tune"]),
        ("plankton", ["try both", "try both", "tune", "tune", "tune"]),
    ],
)
def test_the_papers_table(name: str, words: list[str]) -> None:
    """At 1, 20, 21, 99 and 100 images per class, for distances of the paper."""
    known = distances([measured(1, "digits", CHU_TABLE_2[name], model="alexnet")])
    target = Target("digits", key("digits"))
    found = [chu_cell(Question(target, size), known) for size in (1, 20, 21, 99, 100)]
    assert found == words


@pytest.mark.parametrize(
    "other",
    [{"model": "resnet18"}, {"layer": "6"}, {"weights": {"run": "r1"}}, {"measure": "mmd"}],
)
def test_the_papers_table_is_for_its_own_measure(other: dict[str, Any]) -> None:
    """Other networks, layers, weights and measures have another scale."""
    known = distances([measured(1, "digits", 0.1, **({"model": "alexnet"} | other))])
    target = Target("digits", key("digits"))
    assert chu_cell(Question(target, 10), known) is None
    assert chu_cell(Question(target, 10, model="resnet18"), known) is None


# --- what follows -----------------------------------------------------------------------------


def compared(values: Sequence[float], dataset: str = "digits", **both: Any) -> list[Comparison]:
    """A comparison whose differences are `values`."""
    study = Study()
    size = float(both.pop("size", 20))
    for replicate, value in enumerate(values):
        for layers, score in ((FROZEN, 0.5), (TUNED, 0.5 + value)):
            asked = params(layers, per_class=int(size), dataset=dataset, **both)
            study.add(asked, replicate, {"test/top1": score}, size=size)
    return study.found()


UP, DOWN, WIDE = [0.1, 0.11, 0.12], [-0.1, -0.11, -0.12], [-0.1, 0.0, 0.11]
NONE = [0.001, -0.001, 0.0]


@pytest.mark.parametrize(
    ("settings_of", "word"),
    [
        ([], "unknown"),
        ([[0.1, 0.2]], "unknown"),
        ([UP, UP], "tune"),
        ([UP, WIDE], "tune"),
        ([DOWN, NONE], "freeze"),
        ([NONE], "either"),
        ([NONE, WIDE], "either"),
        ([WIDE], "undecided"),
        ([UP, DOWN], "contradictory"),
    ],
)
def test_verdicts(settings_of: list[list[float]], word: str) -> None:
    """What each mixture of settings says; too few replicates say nothing."""
    found = verdict([one for values in settings_of for one in compared(values)])
    assert found.word == word and found.num_settings == len(settings_of)


def scale(**by_target: float) -> list[Distances]:
    """Distances of datasets for the network of these comparisons."""
    return distances(
        [
            measured(number, name, value, weights={"run": "source"})
            for number, (name, value) in enumerate(by_target.items(), start=1)
        ]
    )


def test_only_what_is_near_speaks() -> None:
    """The same target or a similar distance, at a similar number of images."""
    known = [
        *compared(UP), *compared(DOWN, size=200), *compared(DOWN, "elpv"),
        *compared(UP, "mnist5k"), *compared(DOWN, "glyphs"),
    ]  # fmt: skip
    target = Target.of(params(TUNED)["target"])
    measures = scale(digits=0.2, elpv=0.9, mnist5k=0.3)
    found = advise(Question(target, 40), known, measures)
    assert [(one.comparison.target.name, one.is_near, one.why) for one in found.neighbours] == [
        ("digits", True, "the same target"),
        ("mnist5k", True, "similar distance"),
        ("digits", False, "other number of images per class"),
        ("elpv", False, "other distance"),
        ("glyphs", False, "distance not known"),
    ]
    assert found.verdict.word == "tune" and found.verdict.num_settings == 2
    assert [one.distance for one in found.neighbours] == [0.2, 0.3, 0.2, 0.9, None]
    assert advise(Question(target, 200), known, measures).verdict.word == "freeze"
    assert advise(Question(target, 40, "resnet18"), known, measures).verdict.word == "unknown"
    assert advise(Question(target, 40, "mini8", "imagenet"), known, []).neighbours == ()


def test_the_deepest_copies_speak() -> None:
    """Comparisons that re-initialise more layers than need be are not what is asked about."""
    study = Study()
    for layers, value in (
        ("F(1-3)R(4-8)", 0.5),
        ("FT(1-3)R(4-8)", 0.1),
        (FROZEN, 0.5),
        (TUNED, 0.6),
    ):
        for replicate in range(3):
            study.add(params(layers), replicate, {"test/top1": value})
    target = Target.of(params(TUNED)["target"])
    found = advise(Question(target, 20), study.found(), [])
    assert [one.comparison.layers for one in found.neighbours] == [TUNED]
    assert found.verdict.word == "tune"
    assert found.no_boundary == "no distance is recorded"


def test_a_boundary_is_fitted_once_the_runs_carry_it() -> None:
    """A point per target and size, of the network whose distances are known."""
    true = {(0.1, 2): -0.06, (0.1, 20): 0.0, (0.5, 2): 0.0, (0.5, 20): 0.06, (0.9, 2): 0.06,
            (0.9, 20): 0.12}  # fmt: skip
    names = {0.1: "digits", 0.5: "mnist5k", 0.9: "elpv"}
    known = [
        one
        for (d, n), value in true.items()
        for one in compared([value - 0.01, value, value + 0.01], names[d], size=n)
    ]
    measures = scale(digits=0.1, mnist5k=0.5, elpv=0.9)
    target = Target.of(params(TUNED)["target"])
    found = advise(Question(target, 20), known, measures)
    assert found.boundary is not None and found.no_boundary == ""
    assert found.boundary.num_per_class(0.1) == pytest.approx(20)
    assert found.boundary.num_points == 6
    assert len(boundary_points([*known, *known], measures[0])) == 6, "one setting twice is one"
    assert "at least 3" in advise(Question(target, 20), known[:4], measures).no_boundary


def test_networks_are_known_by_the_run_that_kept_their_weights() -> None:
    """Whether people called it by its number or by its experiment."""
    one = Network("mini8", "source", frozenset({"r1"}))
    assert one.is_like(Network("mini8", "r1", frozenset({"r1"})))
    assert one.is_like(Network("mini8", "source", frozenset({"r2"})))
    assert not one.is_like(Network("mini8", "other", frozenset({"r2"})))
    assert not one.is_like(Network("resnet18", "source", frozenset({"r1"})))


def test_what_to_run_picks_the_cell_of_the_source() -> None:
    """Weights of one of an experiment's networks are written as the runs had them."""
    weights = {"run": "source", "cell": {"train.lr": 0.1}}
    told = params(TUNED)
    told["model"]["weights"] = weights | {"checkpoint": None}
    network = Network.of(RunFacts(1, told, {}, {}, (), 20))
    assert network.weights == "source train.lr=0.1"
    known = [replace(one, network=network) for one in compared(WIDE)]
    found = advise(Question(Target.of(told["target"]), 20), known, [])
    told_by = specs(found, Asked({"dataset": "digits"}, {}, "test/top1", False, {}, network, {}))
    assert len(told_by) == 2
    for text in told_by.values():
        assert yaml.safe_load(text)["model"] == {"name": "mini8", "weights": weights}
