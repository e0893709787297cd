"""The language as a whole: whatever is written, it is a plan or one error that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ftd.errors import SpecError
from ftd.planning.plan import make_plan
from ftd.spec.experiment import parse

NAMES = st.sampled_from(["score", "noise", "steps", "a", "b", "seed", "threads", "x.y", ""])
SCALARS = st.sampled_from([0, 1, 2, 0.5, True, None, "a", "x", "", -1, 10**30])
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=5,
)
LEVEL = (
    st.sampled_from([1, 2, 0.5, "x"])
    | st.fixed_dictionaries({"name": st.sampled_from(["x", "y"]), "value": SCALARS})
    | st.fixed_dictionaries(
        {"name": st.sampled_from(["x", "y"]), "set": st.dictionaries(NAMES, SCALARS, max_size=2)}
    )
    | ANYTHING
)
LEVELS = st.lists(LEVEL, min_size=1, max_size=3) | ANYTHING
CONDITIONS = st.dictionaries(NAMES, st.lists(SCALARS, max_size=2) | SCALARS, max_size=2)
FACTOR = LEVELS | st.fixed_dictionaries(
    {"levels": LEVELS | st.dictionaries(st.sampled_from(["1", "2", "x"]), LEVELS, max_size=2)},
    optional={
        "when": CONDITIONS,
        "by": NAMES,
        "role": st.sampled_from(["factor", "block", "random", "other"]),
    },
)
STREAM = st.sampled_from(["split", "subset", "train", "init", "source", "other"])
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "factors": st.dictionaries(NAMES, FACTOR, max_size=3) | ANYTHING,
        "baseline": st.dictionaries(NAMES, SCALARS, max_size=3) | ANYTHING,
        "cells": st.lists(st.dictionaries(NAMES, SCALARS), max_size=2) | ANYTHING,
        "exclude": st.lists(st.dictionaries(NAMES, SCALARS), max_size=2) | ANYTHING,
        "tune": st.fixed_dictionaries(
            {"over": st.dictionaries(NAMES, LEVELS, max_size=2), "select": st.just("val/score")},
            optional={"per": st.sampled_from(["replicate", "cell", 3])},
        )
        | ANYTHING,
        "replicates": st.integers(-1, 4)
        | st.dictionaries(STREAM, st.integers(0, 3), max_size=3)
        | ANYTHING,
        "seeds": st.dictionaries(STREAM, st.integers(-1, 3), max_size=3) | ANYTHING,
        "budget": ANYTHING,
        "include": ANYTHING,
    },
)

PATHS = st.sampled_from(["score", "noise", "steps", "width"])
NUMBERS = st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True)
GOOD_FACTOR = NUMBERS | st.fixed_dictionaries(
    {"levels": NUMBERS},
    optional={
        "when": st.dictionaries(PATHS, st.integers(1, 3), max_size=1),
        "role": st.sampled_from(["factor", "block"]),
    },
)
GOOD = st.fixed_dictionaries(
    {"factors": st.dictionaries(PATHS, GOOD_FACTOR, max_size=3)},
    optional={
        "exclude": st.lists(st.dictionaries(PATHS, st.integers(1, 3), min_size=1), max_size=1),
        "baseline": st.fixed_dictionaries({}, optional=dict.fromkeys(
            ["score", "noise", "steps", "width"], st.integers(1, 2)
        )),
        "tune": st.fixed_dictionaries(
            {"over": st.dictionaries(PATHS, NUMBERS, min_size=1), "select": st.just("val/score")}
        ),
        "replicates": st.integers(1, 3)
        | st.dictionaries(st.sampled_from(["subset", "train"]), st.integers(1, 3), min_size=1),
        "seeds": st.dictionaries(st.sampled_from(["source", "classes"]), st.integers(0, 3)),
    },
)  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(SPEC | GOOD)
def test_a_plan_or_one_error_with_its_place(content: dict[str, Any]) -> None:
    """No other exception, whatever stands at the keys; a plan is consistent in itself."""
    text = json.dumps({"experiment": "trial", "job": "drill", **content}, indent=1)
    try:
        plan = make_plan(parse(text, "s.yaml"), Path("/"), device_kind="cpu")
    except SpecError as error:
        assert "s.yaml" in error.where
        event("refused")
        return
    event("planned")
    assert len(plan.places) == len(plan.cells) * plan.replicates * plan.candidates
    places = {(place.cell, place.replicate, place.candidate) for place in plan.places}
    assert len(places) == len(plan.places)
    assert {place.run_key for place in plan.places} == {run.key for run in plan.runs}
    assert all(plan.cells[place.cell] == place.factors for place in plan.places)
    told = [json.dumps(cell, sort_keys=True) for cell in plan.cells]
    assert len(set(told)) == len(told)
    kept = json.loads(json.dumps(plan.outline.as_json()))
    assert type(plan.outline).from_json(kept) == plan.outline
