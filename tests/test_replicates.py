"""Replicates: seeds per stream, pinned and counted, and the unit of an interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import SpecError
from ftd.planning.plan import make_plan
from ftd.seeds import STREAMS, keyed_hash, streams
from ftd.spec.experiment import parse
from ftd.spec.replicates import GROUPS, Replicate, num_inner, replicates

HEAD = "experiment: trial\njob: drill\n"
NAMES = ["split", "classes", "subset", "source", "train"]


def repeated(text: str) -> tuple[Replicate, ...]:
    """The replicates of a spec."""
    return replicates(parse(HEAD + text, "s.yaml"))


def keys(text: str) -> list[str]:
    """The keys of a drill's runs."""
    plan = make_plan(parse(HEAD + text, "s.yaml"), Path("/"), device_kind="cpu")
    return [run.key for run in plan.runs]


@given(st.integers(0, 50), st.integers(1, 6))
def test_a_plain_number_repeats_everything(seed: int, number: int) -> None:
    """Each replicate is a unit, with the seeds that it has always had."""
    found = repeated(f"replicates: {number}\nseed: {seed}")
    assert [one.seeds for one in found] == [streams(seed, index) for index in range(number)]
    assert [one.unit for one in found] == [one.index for one in found] == list(range(number))
    assert found[0].seeds["order"] == keyed_hash("ftd-seed", seed, 0, "order")


def test_counted_streams_are_nested() -> None:
    """The first is the unit; what is not named follows it; the inner one differs inside it."""
    found = repeated("replicates: {subset: 2, train: 3}")
    assert [one.unit for one in found] == [0, 0, 0, 1, 1, 1]
    assert num_inner(parse(HEAD + "replicates: {subset: 2, train: 3}", "s.yaml")) == 3
    for stream in ("subset", "split", "classes", "source"):
        assert len({one.seeds[stream] for one in found}) == 2
        assert len({one.seeds[stream] for one in found if one.unit == 0}) == 1
    for stream in GROUPS["train"]:
        assert len({one.seeds[stream] for one in found}) == 6


counts = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3), min_size=1, max_size=3)


@given(counts, st.integers(0, 5))
def test_a_seed_depends_on_the_outer_counts_only(counted: dict[str, int], seed: int) -> None:
    """Counting an inner stream further never changes a seed that was there: runs are kept."""
    before = repeated(f"replicates: {counted}\nseed: {seed}")
    assert len(before) == math.prod(counted.values())
    assert len({tuple(one.seeds.items()) for one in before}) == len(before)
    innermost = list(counted)[-1]
    more = {**counted, innermost: counted[innermost] + 1}
    after = repeated(f"replicates: {more}\nseed: {seed}")
    assert {tuple(one.seeds.items()) for one in before} < {tuple(o.seeds.items()) for o in after}


def test_counting_a_stream_keeps_the_runs_of_a_plain_number() -> None:
    """The first repetition inside each unit is the plain replicate."""
    plain = keys("replicates: 3")
    assert keys("replicates: {subset: 3}") == plain
    assert keys("replicates: {split: 3, train: 2}")[::2] == plain


@given(st.sets(st.sampled_from(STREAMS), max_size=len(STREAMS) - 1), st.integers(0, 3))
def test_pinned_streams_stay(pinned: set[str], number: int) -> None:
    """They are the same in every replicate and under every seed; the others are as before."""
    seeds = {name: number for name in sorted(pinned)}
    for seed in (0, 7):
        found = repeated(f"replicates: 3\nseed: {seed}\nseeds: {seeds}")
        for one in found:
            for name in STREAMS:
                expected = streams(0, number) if name in pinned else streams(seed, one.index)
                assert one.seeds[name] == expected[name]


def test_a_group_is_pinned_as_a_whole() -> None:
    """`train` stands for initial weights, order, augmentation and dropout."""
    first, second = repeated("replicates: 2\nseeds: {train: 4}")
    for name in STREAMS:
        assert (first.seeds[name] == second.seeds[name]) is (name in GROUPS["train"])


def test_the_cells_of_a_replicate_share_its_seeds() -> None:
    """Candidates and cells at one replicate differ in parameters alone: contrasts are paired."""
    text = (
        "factors: {score: [1, 2]}\ntune: {over: {noise: [0, 1, 2]}, select: val/score}\n"
        "replicates: {subset: 2, train: 2}"
    )
    plan = make_plan(parse(HEAD + text, "s.yaml"), Path("/"), device_kind="cpu")
    by_key = {run.key: run for run in plan.runs}
    found: dict[int, set[Any]] = {}
    for place in plan.places:
        seeds = tuple(by_key[place.run_key].seeds.items())
        found.setdefault(place.replicate, set()).add(seeds)
    assert [len(seeds) for seeds in found.values()] == [1, 1, 1, 1]
    assert len(plan.places) == len(plan.runs) == 2 * 3 * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replicates:\n  subst: 3", ["s.yaml:4: replicates.subst", "Did you mean 'subset'?"]),
        ("replicates:\n  subset: 0", ["s.yaml:4: replicates.subset", "greater than or equal to 1"]),
        ("replicates: {}", ["s.yaml:3: replicates", "at least 1"]),
        ("replicates: many", ["s.yaml:3: replicates", "not many"]),
        ("replicates:\n  train: 2\n  init: 2", ["s.yaml:5: replicates.init", "as well as in init"]),
        ("replicates: {subset: 10000, train: 2}", ["s.yaml:3: replicates", "20,000 replicates"]),
        ("seeds:\n  splt: 1", ["s.yaml:4: seeds.splt", "Did you mean 'split'?"]),
        ("seeds:\n  split: -1", ["s.yaml:4: seeds.split", "not -1"]),
        ("seeds: {train: 1, dropout: 2}", ["s.yaml:3: seeds.dropout", "keep one"]),
        (
            "replicates: {subset: 2, train: 2}\nseeds: {init: 1}",
            ["s.yaml:4: seeds.init", "init is pinned and counted"],
        ),
        (
            "replicates: 2\nseeds: {train: 0, split: 0, classes: 0, subset: 0, source: 0}",
            ["s.yaml:4: seeds", "one run"],
        ),
    ],
)
def test_bad_seeds_are_refused(text: str, expected: list[str]) -> None:
    """The error names the line and the stream."""
    with pytest.raises(SpecError) as caught:
        repeated(text)
    assert [part for part in expected if part not in str(caught.value)] == []
