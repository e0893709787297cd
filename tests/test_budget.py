"""Budgets: how long every run trains, in the unit in which runs are to be equal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftd.errors import SpecError
from ftd.planning.plan import Plan, make_plan
from ftd.spec.experiment import parse
from jobs.budget import labels_used
from jobs.params.target import TargetParams

HEAD = "experiment: trial\njob: finetune\nmodel: {name: resnet18, weights: none}\nlayers: R(1-)\n"
REST = "target: {dataset: digits, decode_size: 32}\ntrain: {batch_size: 16}\n"


def planned(text: str) -> Plan:
    """The plan of a small fine-tuning."""
    return make_plan(parse(HEAD + text, "s.yaml"), Path("/"), device_kind="cpu")


def train(text: str) -> list[dict[str, Any]]:
    """The training parameters of every run."""
    return [run.params["train"] for run in planned(text).runs]


@pytest.mark.parametrize("match", ["steps", "epochs"])
def test_steps_and_epochs_are_the_parameters_of_that_name(match: str) -> None:
    """A budget asks the same question as the parameter: the same run, by key."""
    budgeted = planned(REST + f"budget: {{match: {match}, value: 7}}")
    plain = planned(REST.replace("{batch_size", f"{{{match}: 7, batch_size"))
    assert [run.key for run in budgeted.runs] == [run.key for run in plain.runs]


@settings(max_examples=20)
@given(st.integers(1, 5000), st.integers(1, 300), st.sampled_from(["target", "total"]))
def test_images_are_whole_batches(number: int, batch_size: int, which: str) -> None:
    """As many steps as it takes to see so many images, whatever the batch size."""
    text = REST.replace("16", str(batch_size))
    (found,) = train(text + f"budget: {{match: {which}_images, value: {number}}}")
    assert found["steps"] == math.ceil(number / batch_size) and found["epochs"] is None


def test_each_batch_size_gets_its_own_steps() -> None:
    """The default batch size counts too; arms of other batch sizes see equally many images."""
    text = REST.replace("train: {batch_size: 16}", "budget: {match: target_images, value: 640}")
    assert [one["steps"] for one in train(text)] == [20]
    varied = train(text + "factors: {train.batch_size: [10, 64]}")
    assert [one["steps"] for one in varied] == [64, 10]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budget: {match: step, value: 3}", ["budget.match", "Did you mean 'steps'?"]),
        ("budget: {match: steps}", ["budget.value", "missing"]),
        ("budget: {match: steps, value: 0}", ["budget.value", "greater than or equal to 1"]),
        (
            "budget: {match: steps, value: 3}\ntrain: {steps: 3}",
            ["s.yaml:7: train.steps", "train.steps is given", "Keep one of them"],
        ),
        (
            "budget: {match: target_images, value: 3}\nfactors: {train.epochs: [1, 2]}",
            ["s.yaml:7: factors.train.epochs[0]", "train.epochs is given"],
        ),
        (
            "budget: {match: target_images, value: 3}\ntrain: {batch_size: many}",
            ["s.yaml:7: train.batch_size", "not many"],
        ),
    ],
)
def test_a_bad_budget_is_refused(text: str, expected: list[str]) -> None:
    """Two lengths of training in one spec contradict each other; the error names the line."""
    target = REST.splitlines()[0]
    with pytest.raises(SpecError) as caught:
        planned(f"{target}\n{text}")
    assert [part for part in expected if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({}, "the rest, val 20%"),
        ({"per_class": 5, "val_per_class": 0}, "5 per class, val 0"),
        ({"num_images": 70, "val_count": 30}, "70, val 30"),
        ({"train_fraction": 0.5, "val_fraction": 0.1}, "50%, val 10%"),
        ({"split": "given"}, "the rest, val as given, else 20%"),
        ({"split": "given", "val_per_class": 2}, "the rest, val 2 per class"),
    ],
)
def test_labels_used_count_validation_too(target: dict[str, Any], expected: str) -> None:
    """What the target's parameters say, without looking at an image."""
    folder = {"dataset": "folder", "folder": "images"}
    assert labels_used(TargetParams.model_validate({**folder, **target})) == expected


def test_a_job_without_training_takes_no_budget() -> None:
    """The drill cannot say what an image is, and says so where the budget stands."""
    text = "experiment: trial\njob: drill\nbudget: {match: steps, value: 3}"
    with pytest.raises(SpecError, match=r"s\.yaml:3: budget: this job takes no budget"):
        make_plan(parse(text, "s.yaml"), Path("/"), device_kind="cpu")
