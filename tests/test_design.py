"""Designs: how factors, listed cells and excludes become cells."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import SpecError
from ftd.spec.design import Cell, cells
from ftd.spec.experiment import parse

HEAD = "experiment: trial\njob: drill\n"


def designed(text: str) -> tuple[Cell, ...]:
    """The cells of a drill's spec."""
    return cells(parse(HEAD + text, "s.yaml"))


def refused(text: str) -> str:
    """What is said about a design that cannot be."""
    with pytest.raises(SpecError) as caught:
        designed(text)
    return str(caught.value)


def test_a_spec_without_factors_has_one_cell() -> None:
    """Nothing varied is one combination: the spec as it is."""
    (cell,) = designed("")
    assert (cell.index, cell.levels, cell.assignments) == (0, {}, {})


def test_levels_are_crossed_in_order_of_appearance() -> None:
    """The first factor varies slowest."""
    found = [cell.levels for cell in designed("factors: {b: [2, 1], a: [x, y]}")]
    assert found == [
        {"b": 2, "a": "x"},
        {"b": 2, "a": "y"},
        {"b": 1, "a": "x"},
        {"b": 1, "a": "y"},
    ]


sizes = st.lists(st.integers(1, 4), max_size=4)


@given(sizes)
def test_the_crossing_is_complete_and_distinct(sizes: list[int]) -> None:
    """There are as many different cells as combinations, numbered from 0."""
    factors = {f"f{i}": list(range(size)) for i, size in enumerate(sizes)}
    found = designed(f"factors: {factors}")
    expected = [dict(zip(factors, c, strict=True)) for c in itertools.product(*factors.values())]
    assert [cell.levels for cell in found] == expected
    assert [cell.index for cell in found] == list(range(len(expected)))


def test_a_named_level_shows_its_name_and_sets_its_value() -> None:
    """`{name, value}` gives a value a word."""
    first, second = designed("factors: {score: [{name: low, value: 0.1}, 0.9]}")
    assert (first.levels, first.assignments) == ({"score": "low"}, {"score": 0.1})
    assert (second.levels, second.assignments) == ({"score": 0.9}, {"score": 0.9})


def test_a_bundle_sets_several_parameters() -> None:
    """`{name, set}` sets what it lists, whatever the factor is called."""
    text = "factors: {arm: [{name: a, set: {score: 1, noise: 0}}, {name: b, set: {steps: 3}}]}"
    first, second = designed(text)
    assert (first.levels, first.assignments) == ({"arm": "a"}, {"score": 1, "noise": 0})
    assert (second.levels, second.assignments) == ({"arm": "b"}, {"steps": 3})


def test_a_mapping_without_value_or_set_is_a_value() -> None:
    """Composite values are levels too, shown as they were written."""
    (cell,) = designed("factors: {model: [{name: net, weights: none}]}")
    assert cell.levels == {"model": "{name: net, weights: none}"}
    assert cell.assignments == {"model": {"name": "net", "weights": "none"}}


def test_long_composite_values_stay_apart() -> None:
    """Two levels that differ only far inside are two levels."""
    path = "/data/" + "deep/" * 30
    found = designed(f"factors: {{model: [{{file: {path}a}}, {{file: {path}b}}]}}")
    assert [cell.assignments["model"]["file"][-1] for cell in found] == ["a", "b"]


def test_listed_cells_replace_the_crossing() -> None:
    """With `cells`, exactly the listed combinations exist, by name or value."""
    found = designed(
        "factors: {arm: [{name: a, set: {steps: 1}}, {name: b, set: {steps: 2}}], score: [1, 2]}\n"
        "cells: [{arm: b, score: 1}, {score: 2, arm: a}]"
    )
    assert [cell.levels for cell in found] == [{"arm": "b", "score": 1}, {"arm": "a", "score": 2}]


def test_listed_cells_need_no_declared_factors() -> None:
    """A parameter path with a value in each cell is a factor as well."""
    found = designed("cells: [{score: 1, noise: 0}, {score: 2, noise: 0.5}]")
    assert [cell.assignments for cell in found] == [
        {"score": 1, "noise": 0},
        {"score": 2, "noise": 0.5},
    ]


def test_excluded_combinations_are_left_out() -> None:
    """A cell goes when every level of one entry matches it."""
    found = designed("factors: {a: [1, 2], b: [x, y]}\nexclude: [{a: 1, b: y}, {a: 2, b: x}]")
    assert [cell.levels for cell in found] == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert [cell.index for cell in found] == [0, 1]


@given(sizes.filter(bool), st.data())
def test_excluding_removes_exactly_the_matches(sizes: list[int], data: st.DataObject) -> None:
    """What remains is the crossing less the cells that match a partial assignment."""
    factors = {f"f{i}": list(range(size)) for i, size in enumerate(sizes)}
    names = data.draw(st.lists(st.sampled_from(list(factors)), min_size=1, unique=True))
    partial = {name: data.draw(st.sampled_from(factors[name])) for name in names}
    every = [dict(zip(factors, c, strict=True)) for c in itertools.product(*factors.values())]
    expected = [cell for cell in every if any(cell[n] != v for n, v in partial.items())]
    text = f"factors: {factors}\nexclude: [{partial}]"
    if expected:
        assert [cell.levels for cell in designed(text)] == expected
    else:
        assert "every cell is excluded" in refused(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("factors:\n  a: [1, 2, 1]", ["s.yaml:4: factors.a[2]", "stands twice"]),
        ("factors:\n  a: [x, {name: x, value: 1}]", ["s.yaml:4: factors.a[1]", "stands twice"]),
        ("factors:\n  a:\n  - {name: x, set: {}}", ["s.yaml:5: factors.a[0]", "named level"]),
        ("factors:\n  a:\n  - {set: {b: 1}}", ["s.yaml:5: factors.a[0]", "named level"]),
        ("factors:\n  a:\n  - {name: 1, value: 2}", ["s.yaml:5: factors.a[0]", "named level"]),
        ("factors: {a: [1]}\nexclude: [{b: 1}]", ["s.yaml:4: exclude[0].b", "Allowed: a"]),
        ("factors: {a: [1]}\nexclude:\n- {a: 2}", ["s.yaml:5: exclude[0].a", "Allowed: 1"]),
        ("factors: {a: [lo, hi]}\ncells: [{a: hj}]", ["s.yaml:4: cells[0].a", "mean 'hi'"]),
        ("cells:\n- {a: 1}\n- {b: 2}", ["s.yaml:4: cells[0]", "which level of b"]),
        ("cells: []", ["s.yaml:3: cells"]),
        ("factors: {a: [1], c: [{name: x, set: {a: 2}}]}", ["a is set twice", "factor a"]),
        ("factors: {a.b: [1], a: [{b: 2}]}", ["set twice", "a.b"]),
        ("factors: {a: [1]}\nexclude: [{a: 1}]", ["s.yaml:4: exclude", "every cell is excluded"]),
        ("replicates: 10000\ncells: [" + "{a: 1}," * 11 + "]", ["110,000 runs", "100,000"]),
    ],
)
def test_a_bad_design_is_refused(text: str, expected: list[str]) -> None:
    """The error names the level's line and what is wrong with it."""
    message = refused(text)
    assert [part for part in expected if part not in message] == []


def test_a_giant_crossing_is_refused_before_it_is_made() -> None:
    """The number of combinations is told without building them."""
    factors = {f"f{i}": list(range(100)) for i in range(20)}
    assert f"{100**20:,} cells, the limit is 100,000" in refused(f"factors: {factors}")


def test_one_true_and_text_are_three_levels() -> None:
    """Levels are compared with their types."""
    assert [c.levels["a"] for c in designed("factors: {a: [1, true, '1']}")] == [1, True, "1"]
