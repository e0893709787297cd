"""The numbers of a summary, against scipy's and against what must not change them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Mapping

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ftd.stats.contrasts import MAX_LEVELS_ALL_PAIRS, Contrast, contrasts
from ftd.stats.observations import Label, Observation, by_level, same
from ftd.stats.spread import Spread, interval, spread
from ftd.stats.summary import summarise
from tests.processes import modules_after

VALUES = st.floats(-1e3, 1e3).map(lambda value: round(value, 4))


def grid(
    value: Callable[[Mapping[str, Label], int], float | None],
    factors: Mapping[str, list[Label]],
    replicates: int,
) -> list[Observation]:
    """A full factorial with `value(levels, replicate)`; None makes an absent observation."""
    found = []
    for cell, labels in enumerate(itertools.product(*factors.values())):
        chosen = dict(zip(factors, labels, strict=True))
        for replicate in range(replicates):
            got = value(chosen, replicate)
            found.append(
                Observation(
                    run_id=len(found) + 1,
                    cell=cell,
                    replicate=replicate,
                    factors=chosen,
                    value=got,
                    absent="" if got is not None else "queued",
                    cost_actual_s=2.0,
                    cost_alone_s=3.0,
                    flags=(),
                )
            )
    return found


def contrast(
    observations: list[Observation], factor: str, level: Label, baseline: Label
) -> Contrast:
    """The contrast of two levels."""
    return next(
        found
        for found in contrasts(observations, factor)
        if (same(found.level), same(found.baseline)) == (same(level), same(baseline))
    )


@given(st.lists(VALUES, min_size=2, max_size=30))
def test_spread_is_the_sample_mean_and_deviation(values: list[float]) -> None:
    """Mean and sd agree with the standard library's definitions."""
    found = spread(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.mean(values), abs=1e-9)
    assert found.sd == pytest.approx(statistics.stdev(values), abs=1e-6)


@given(st.lists(VALUES, min_size=3, max_size=30))
def test_the_interval_is_students(values: list[float]) -> None:
    """The interval equals that of scipy's one-sample t-test."""
    found = interval(spread(values))
    assert found is not None
    if len(set(values)) == 1:
        assert found.low == found.high == values[0]
        return
    wanted = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0]])
def test_no_interval_below_three_values(values: list[float]) -> None:
    """Two values give a mean and a spread, but no interval."""
    assert interval(spread(values)) is None


@given(st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=12))
def test_a_contrast_of_one_factor_is_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    """With nothing else varied, mean and interval are those of scipy's paired t-test."""
    seen = grid(
        lambda at, replicate: pairs[replicate][at["x"] == "b"], {"x": ["a", "b"]}, len(pairs)
    )
    found = contrast(seen, "x", "b", "a")
    a, b = zip(*pairs, strict=True)
    differences = [other - one for one, other in pairs]
    assert found.difference.n == len(pairs)
    assert found.difference.mean == pytest.approx(statistics.mean(differences), abs=1e-6)
    if statistics.pstdev(differences) > 1e-6:
        wanted = scipy.stats.ttest_rel(b, a).confidence_interval(0.95)
        assert found.interval is not None
        limits = (found.interval.low, found.interval.high)
        assert limits == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-6)


def test_cells_are_averaged_within_a_replicate_first() -> None:
    """Two cells x three replicates are three differences, not six."""
    gain = {
        ("a", 0): 1.0,
        ("a", 1): 2.0,
        ("a", 2): 3.0,
        ("b", 0): 3.0,
        ("b", 1): 4.0,
        ("b", 2): 8.0,
    }

    def value(at: Mapping[str, Label], replicate: int) -> float:
        return gain[str(at["other"]), replicate] if at["x"] else 0.0

    seen = grid(value, {"x": [False, True], "other": ["a", "b"]}, 3)
    found = contrast(seen, "x", True, False)
    assert found.difference.n == 3
    assert found.difference.mean == pytest.approx(statistics.mean([2.0, 3.0, 5.5]))
    assert found.difference.sd == pytest.approx(statistics.stdev([2.0, 3.0, 5.5]))
    assert len(found.pairs) == found.num_possible == 6


@given(
    st.lists(VALUES, min_size=4, max_size=4),
    st.lists(st.lists(VALUES, min_size=6, max_size=6), min_size=4, max_size=4),
)
def test_what_a_replicate_shares_cancels(shifts: list[float], base: list[list[float]]) -> None:
    """Adding a constant to all cells of a replicate leaves every paired difference unchanged."""
    factors: dict[str, list[Label]] = {"x": [1, 2, 3], "y": ["u", "v"]}

    def value(at: Mapping[str, Label], replicate: int) -> float:
        return base[replicate][factors["x"].index(at["x"]) * 2 + (at["y"] == "v")]

    plain = grid(value, factors, 4)
    moved = grid(lambda at, replicate: value(at, replicate) + shifts[replicate], factors, 4)
    for one, other in zip(contrasts(plain, "x"), contrasts(moved, "x"), strict=True):
        assert one.difference.mean == pytest.approx(other.difference.mean, abs=1e-6)
        assert one.difference.sd == pytest.approx(other.difference.sd, abs=1e-6)


@given(st.integers(0, 1000))
def test_order_of_observations_does_not_matter(seed: int) -> None:
    """A summary is a function of the set of observations."""
    numbers = random.Random(seed)
    seen = grid(lambda at, replicate: numbers.random(), {"x": [1, 2], "y": ["u", "v"]}, 3)
    shuffled = seen.copy()
    numbers.shuffle(shuffled)
    one, other = summarise(seen, "m"), summarise(shuffled, "m")
    assert [cell.factors for cell in one.cells] == [cell.factors for cell in other.cells]
    for mine, theirs in zip(one.factors, other.factors, strict=True):
        assert [each.level for each in mine.levels] == [each.level for each in theirs.levels]
        for left, right in zip(mine.contrasts, theirs.contrasts, strict=True):
            assert left.difference.mean == pytest.approx(right.difference.mean, abs=1e-12)
            assert set(left.pairs) == set(right.pairs)


def test_what_arithmetic_leaves_of_zero_is_zero() -> None:
    """Gains that cancel, or are equal but for their last bit, have mean and spread exactly zero."""

    def difference(*pairs: tuple[float, float]) -> Spread:
        seen = grid(lambda at, replicate: pairs[replicate][at["x"] == 1], {"x": [0, 1]}, len(pairs))
        return contrast(seen, "x", 1, 0).difference

    found = difference((0.2, 0.1), (0.2, 0.3))
    assert (found.mean, found.sd) == (0, pytest.approx(math.sqrt(0.02)))
    found = difference((0.2, 0.3), (0.1, 0.2))
    assert (found.mean, found.sd) == (pytest.approx(0.1), 0)
    found = difference((1e-20, 3e-20), (1e-20, 2e-20))
    assert (found.mean, found.n) == (pytest.approx(1.5e-20), 2)


def test_swapping_levels_turns_the_sign() -> None:
    """b - a is -(a - b), interval included."""

    def value(at: Mapping[str, Label], replicate: int) -> float:
        return replicate * (1.0 + (at["x"] == "b"))

    one = contrast(grid(value, {"x": ["a", "b"]}, 4), "x", "b", "a")
    other = contrast(grid(value, {"x": ["b", "a"]}, 4), "x", "a", "b")
    assert one.difference.mean == -other.difference.mean  # type: ignore[operator]
    assert one.interval is not None and other.interval is not None
    assert (one.interval.low, one.interval.high) == (-other.interval.high, -other.interval.low)


def test_a_missing_partner_leaves_the_pair_out_and_is_counted() -> None:
    """One absent run costs one pair of its replicate; the others still count."""
    seen = grid(
        lambda at, replicate: (
            None if at == {"x": "b", "y": 1} and replicate == 0 else 1.0 * replicate
        ),
        {"x": ["a", "b"], "y": [1, 2]},
        3,
    )
    found = contrast(seen, "x", "b", "a")
    assert (len(found.pairs), found.num_possible, found.difference.n) == (5, 6, 3)


def test_places_that_share_a_run_are_counted_as_identical() -> None:
    """A parameter that cannot matter gives difference 0 by construction, and that is said."""
    seen = grid(lambda at, replicate: 1.0 * replicate, {"x": ["a", "b"]}, 3)
    shared = [dataclasses.replace(each, run_id=each.replicate + 1) for each in seen]
    found = contrast(shared, "x", "b", "a")
    assert found.num_identical == len(found.pairs) == 3
    assert found.difference.mean == 0.0


def test_many_levels_are_compared_with_the_first() -> None:
    """Up to six levels: all pairs; above: each against the first one."""
    few: list[Label] = list(range(MAX_LEVELS_ALL_PAIRS))
    many: list[Label] = list(range(MAX_LEVELS_ALL_PAIRS + 1))
    assert len(contrasts(grid(lambda at, _: 1.0, {"x": few}, 1), "x")) == 15
    found = contrasts(grid(lambda at, _: 1.0, {"x": many}, 1), "x")
    assert [(each.level, each.baseline) for each in found] == [(level, 0) for level in many[1:]]


def test_levels_that_look_alike_stay_apart() -> None:
    """1, true and "1" are three levels."""
    labels: list[Label] = [1, True, "1"]
    seen = grid(lambda at, replicate: 1.0, {"x": labels}, 2)
    found = by_level(seen, "x")
    assert [json.dumps(label) for label, _ in found] == ["1", "true", '"1"']
    assert [len(observations) for _, observations in found] == [2, 2, 2]


def test_groups_count_everything() -> None:
    """n, planned, cost, absences and run ids of a level add up; nothing is dropped."""
    seen = grid(lambda at, replicate: None if replicate == 1 else 3.0, {"x": ["a", "b"]}, 3)
    found = summarise(seen, "m")
    for level in found.factors[0].levels:
        assert (level.group.num_planned, level.group.measured.n) == (3, 2)
        assert level.group.absent == {"queued": 1}
        assert (level.group.cost_actual_s, level.group.cost_alone_s) == (2.0, 3.0)
        assert len(level.group.run_ids) == 3
    assert sum(cell.group.num_planned for cell in found.cells) == found.overall.num_planned == 6


def test_a_factor_that_only_some_cells_name() -> None:
    """A factor has levels where it exists only."""
    seen = grid(lambda at, replicate: 1.0, {"x": ["a", "b"]}, 1)
    seen.append(dataclasses.replace(seen[0], cell=2, run_id=9, factors={"x": "a", "z": 1}))
    assert [level for level, _ in by_level(seen, "z")] == [1]
    assert contrasts(seen, "z") == []


def test_scipy_is_loaded_only_for_intervals() -> None:
    """Importing the statistics costs no scipy: only an interval needs it."""
    assert "scipy" in sys.modules  # this test would see it
    assert not modules_after("import ftd.stats.summary") & {"scipy", "numpy"}
