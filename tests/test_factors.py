"""Conditional factors, levels by another factor, roles, and designs around a baseline."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ftd.planning.plan import Plan, make_plan
from ftd.spec.experiment import parse
from tests.test_design import HEAD, designed, refused


def levels_of(text: str) -> list[dict[str, Any]]:
    """The levels of every cell."""
    return [dict(cell.levels) for cell in designed(text)]


def planned(text: str) -> Plan:
    """The plan of a drill's spec."""
    return make_plan(parse(HEAD + text, "s.yaml"), Path("/"), device_kind="cpu")


def test_a_conditional_factor_exists_in_some_cells_only() -> None:
    """Elsewhere its cells are one, in which it has no level and its parameter keeps its default."""
    found = levels_of("factors: {score: [1, 2], noise: {levels: [3, 4], when: {score: [2]}}}")
    assert found == [{"score": 1}, {"score": 2, "noise": 3}, {"score": 2, "noise": 4}]
    first = planned("factors: {score: [1, 2], noise: {levels: [3, 4], when: {score: 2}}}").runs[0]
    assert first.params["noise"] == 0.05


def test_levels_by_another_factor() -> None:
    """Each level of the other factor has levels of its own; keys are its names or values."""
    found = levels_of(
        "factors: {score: [1e-1, {name: far, value: 9}],"
        " noise: {by: score, levels: {0.1: [1, 2], far: [2]}}}"
    )
    assert found == [
        {"score": 0.1, "noise": 1},
        {"score": 0.1, "noise": 2},
        {"score": "far", "noise": 2},
    ]


def test_by_and_when_together() -> None:
    """Levels are needed only where the factor exists; what it hangs on may be conditional too."""
    text = """
factors:
  a: [x, y]
  b: {levels: [1, 2], when: {a: x}}
  c: {by: b, levels: {2: [p, q]}, when: {b: 2}}
"""
    assert levels_of(text) == [
        {"a": "x", "b": 1},
        {"a": "x", "b": 2, "c": "p"},
        {"a": "x", "b": 2, "c": "q"},
        {"a": "y"},
    ]


@st.composite
def designs(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Factors f0, f1, ...: lists of numbers, some with a condition on factors above."""
    factors: dict[str, dict[str, Any]] = {}
    for index in range(draw(st.integers(1, 4))):
        above = list(factors)
        when = {}
        conditions = st.lists(
            st.sampled_from(above or [""]), unique=True, max_size=2 if above else 0
        )
        for name in draw(conditions):
            levels = factors[name]["levels"]
            when[name] = draw(st.lists(st.sampled_from(levels), min_size=1, unique=True))
        number = draw(st.integers(1, 3))
        factors[f"f{index}"] = {"levels": list(range(number)), "when": when}
    assume({name for cell in brute_force(factors) for name in cell} == set(factors))
    return factors


def brute_force(factors: dict[str, dict[str, Any]]) -> list[dict[str, int]]:
    """The whole product, each combination less the factors that do not exist in it, once each."""
    found = []
    for combination in itertools.product(*(factor["levels"] for factor in factors.values())):
        cell = dict(zip(factors, combination, strict=True))
        for name, factor in factors.items():
            if any(cell.get(other) not in wanted for other, wanted in factor["when"].items()):
                del cell[name]
        if cell not in found:
            found.append(cell)
    return found


@given(designs())
def test_cells_are_what_enumeration_finds(factors: dict[str, dict[str, Any]]) -> None:
    """Conditions collapse the crossing exactly: no cell missing, none twice, in the same order."""
    assert levels_of(f"factors: {factors}") == brute_force(factors)


@given(designs(), st.data())
def test_another_level_leaves_the_other_keys_alone(
    factors: dict[str, dict[str, Any]], data: st.DataObject
) -> None:
    """Every run there was is still there when a factor gets one level more."""
    paths = ["score", "noise", "width", "steps"]
    named = {}
    for (_, factor), path in zip(factors.items(), paths, strict=False):
        when = {paths[int(name[1])]: [level + 1 for level in wanted]
                for name, wanted in factor["when"].items()}  # fmt: skip
        named[path] = {"levels": [level + 1 for level in factor["levels"]], "when": when}
    before = {run.key for run in planned(f"factors: {named}\nreplicates: 2").runs}
    longer = data.draw(st.sampled_from(list(named)))
    named[longer]["levels"].append(9)
    after = {run.key for run in planned(f"factors: {named}\nreplicates: 2").runs}
    assert before < after


def test_a_baseline_and_each_other_level_alone() -> None:
    """One factor at a time: 1 + (2 - 1) + (3 - 1) cells, the baseline first."""
    found = levels_of("factors: {a: [x, y], b: [1, 2, 3]}\nbaseline: {b: 2, a: x}")
    assert found == [
        {"a": "x", "b": 2},
        {"a": "y", "b": 2},
        {"a": "x", "b": 1},
        {"a": "x", "b": 3},
    ]


def test_a_factor_that_exists_off_the_baseline_only() -> None:
    """It is at its one level wherever another level brings it into being."""
    found = levels_of(
        "factors: {a: [x, y], b: {levels: [1], when: {a: y}}, c: [p, q]}\nbaseline: {a: x, c: p}"
    )
    assert found == [
        {"a": "x", "c": "p"},
        {"a": "y", "b": 1, "c": "p"},
        {"a": "x", "c": "q"},
    ]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_one_at_a_time_is_the_sum_of_the_other_levels(
    sizes: list[int], data: st.DataObject
) -> None:
    """Every cell differs from the baseline in at most one factor, and all such cells are there."""
    factors = {f"f{i}": list(range(size)) for i, size in enumerate(sizes)}
    base = {name: data.draw(st.sampled_from(levels)) for name, levels in factors.items()}
    found = levels_of(f"factors: {factors}\nbaseline: {base}")
    every = [dict(zip(factors, c, strict=True)) for c in itertools.product(*factors.values())]
    expected = [cell for cell in every if sum(cell[n] != base[n] for n in cell) <= 1]
    assert found[0] == base
    assert sorted(map(str, found)) == sorted(map(str, expected))


def test_listed_cells_follow_conditions() -> None:
    """A listed cell names a conditional factor exactly where it exists."""
    text = "factors: {a: [x, y], b: {levels: [1, 2], when: {a: y}}}\ncells: [{a: x}, {a: y, b: 2}]"
    assert levels_of(text) == [{"a": "x"}, {"a": "y", "b": 2}]


def test_excluding_a_conditional_level() -> None:
    """It goes where it exists; cells without the factor stay."""
    text = "factors: {a: [x, y], b: {levels: [1, 2], when: {a: y}}}\nexclude: [{b: 2}]"
    assert levels_of(text) == [{"a": "x"}, {"a": "y", "b": 1}]


def test_roles_and_baseline_are_kept_for_the_summary() -> None:
    """The outline has what the numbers' meaning depends on; typed, as levels are shown."""
    text = """
factors:
  score: ['1e-1', 2]
  noise: {levels: [0, 1], role: block}
  width: {levels: [4, 5], role: random}
baseline: {score: '1e-1', noise: 1, width: 4}
"""
    outline = planned(text).outline
    assert outline.roles == {"noise": "block", "width": "random"}
    assert outline.baseline == {"score": 0.1, "noise": 1.0, "width": 4}
    assert type(outline).from_json(outline.as_json()) == outline


BY = "factors:\n  a: [x, y]\n  b:\n    by: a\n    levels:\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("factors:\n  a: {levls: [1]}", ["s.yaml:4: factors.a.levls", "mean 'levels'?"]),
        ("factors:\n  a: {when: {}}", ["s.yaml:4: factors.a.levels", "'levels' is missing"]),
        ("factors:\n  a:\n    levels: 3", ["s.yaml:5: factors.a.levels", "a list, not 3"]),
        ("factors:\n  a:\n    levels: []", ["s.yaml:5: factors.a.levels", "at least 1"]),
        ("factors:\n  a:\n    levels: [1, 1]", ["s.yaml:5: factors.a.levels[1]", "stands twice"]),
        (
            "factors:\n  a:\n    levels: [1]\n    role: blok",
            ["s.yaml:6: factors.a.role", "Did you mean 'block'?"],
        ),
        (
            "factors:\n  a: [1]\n  b:\n    levels: [1]\n    when: {c: 1}",
            ["s.yaml:7: factors.b.when.c", "no factor 'c'", "Allowed: a"],
        ),
        (
            "factors:\n  b:\n    levels: [1]\n    when: {a: 1}\n  a: [1]",
            ["s.yaml:6: factors.b.when.a", "a does not stand above", "Write a first"],
        ),
        (
            "factors:\n  a: [lo, hi]\n  b:\n    levels: [1]\n    when:\n      a: [hj]",
            ["s.yaml:8: factors.b.when.a", "no level hj", "Did you mean 'hi'?"],
        ),
        (BY + "      x: [1]\n", ["s.yaml:7: factors.b.levels", "no levels where a is y"]),
        (BY + "      x: [1]\n      z: [1]", ["s.yaml:9: factors.b.levels.z", "no level z"]),
        (BY + "      x: [1]\n      y: []", ["s.yaml:9: factors.b.levels.y", "at least 1"]),
        (
            "factors: {a: [1], b: {by: a, levels: [1]}}",
            ["factors.b.levels", "a mapping exactly where `by`"],
        ),
        (
            "factors: {a: [1], b: {levels: {1: [1]}}}",
            ["factors.b.levels", "a mapping exactly where `by`"],
        ),
        (
            "factors: {a: [1], b: {levels: [1], role: random, when: {a: 1}}}",
            ["factors.b.role", "in every cell"],
        ),
        (
            "factors: {a: {levels: [1], role: random}, b: {levels: [1], role: random}}",
            ["factors.b.role", "a is random already"],
        ),
        ("factors: {a: [1, 2]}\nbaseline: {}", ["s.yaml:4: baseline", "at least 1"]),
        ("factors: {a: [1, 2], b: [1]}\nbaseline: {b: 1}", ["s.yaml:4: baseline", "level of a"]),
        ("factors: {a: [1, 2]}\nbaseline: {a: 3}", ["s.yaml:4: baseline.a", "no level 3"]),
        ("factors: {a: [1, 2]}\nbaseline: {c: 3}", ["s.yaml:4: baseline.c", "no factor 'c'"]),
        ("cells: [{a: 1}]\nbaseline: {a: 1}", ["s.yaml:4: baseline", "cells are listed"]),
        (
            "factors: {a: [1, 2]}\nbaseline: {a: 1}\nexclude: [{a: 1}]",
            ["s.yaml:5: exclude", "the baseline is excluded"],
        ),
        (
            "factors:\n  a: [x, y]\n  b: {levels: [1, 2], when: {a: y}}\nbaseline: {a: x, b: 1}",
            ["s.yaml:5: factors.b", "does not exist in the baseline"],
        ),
        (
            "factors: {a: [x, y], b: {levels: [1], when: {a: y}}}\ncells:\n- {a: x, b: 1}",
            ["s.yaml:5: cells[0].b", "does not exist in this cell"],
        ),
        (
            "factors: {a: [x, y], b: {levels: [1], when: {a: y}},"
            " c: {levels: [1], when: {a: x, b: 1}}}",
            ["s.yaml:3: factors.c.when", "c exists in no cell"],
        ),
        (
            "factors: {a: [x, y], b: {levels: [1], when: {a: y}}}\nexclude: [{a: y}]",
            ["s.yaml:3: factors.b.when", "b exists in no cell"],
        ),
        (
            "factors: {a: [x, y], b: {levels: [1], when: {a: y}}}\n"
            "cells:\n- {a: y, b: 1}\n- {a: y}",
            ["s.yaml:6: cells[1]", "which level of b"],
        ),
    ],
)
def test_a_bad_factor_is_refused(text: str, expected: list[str]) -> None:
    """The error names the line, what is wrong, and what to write."""
    message = refused(text)
    assert [part for part in expected if part not in message] == []


def test_the_same_value_may_stand_in_the_lists_of_several_levels() -> None:
    """Lists by another factor are separate; inside one, typed values must differ."""
    text = "factors: {{score: [1, 2], noise: {{by: score, levels: {{1: [0, 1], 2: [{}]}}}}}}"
    assert len(planned(text.format("0, 1.0")).cells) == 4
    with pytest.raises(Exception, match="the same as another one"):
        planned(text.format("1, 1.0"))
