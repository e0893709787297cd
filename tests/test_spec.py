"""Specs: what a text means, and what is said about one that means nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ftd import catalog
from ftd.document import dotted
from ftd.errors import SpecError
from ftd.explain import parameter_paths
from ftd.planning.plan import make_plan
from ftd.spec import yamltext
from ftd.spec.experiment import SERVICE_KEYS, ExperimentSpec, parse

HEAD = "experiment: trial\njob: drill\n"


def refused(text: str, **overrides: str) -> str:
    """What is said about a spec that cannot be planned."""
    with pytest.raises(SpecError) as caught:
        make_plan(parse(text, "s.yaml", overrides), Path("/"), device_kind="cpu")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2E4", -20000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("010", 10),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1:30", "1:30"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-05-01", "2024-05-01"),
        ("1_000", "1_000"),
        ("-", [None]),
        ("'1'", "1"),
        ('"true"', "true"),
        ("|\n  1", "1"),
        ("1.2.3", "1.2.3"),
        (".inf", ".inf"),
        ("e3", "e3"),
        ("F(1-last-1)R(last)", "F(1-last-1)R(last)"),
    ],
)
def test_scalars_mean_what_people_mean(text: str, value: object) -> None:
    """Numbers are numbers, words are words and quotes make text."""
    found = yamltext.read(text, "x").plain()
    assert found == value
    assert type(found) is type(value)


def test_keys_are_always_text() -> None:
    """A key that looks like a number or a truth value is the text that was written."""
    assert yamltext.read("{1: a, on: b, true: c, 1e3: d}", "x").plain() == {
        "1": "a",
        "on": "b",
        "true": "c",
        "1e3": "d",
    }


def test_an_alias_repeats_a_value() -> None:
    """Anchors and aliases work where they are harmless."""
    assert yamltext.read("a: &x {b: [1, 2]}\nc: *x\n", "s").plain()["c"] == {"b": [1, 2]}


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain_values)
def test_json_is_read_as_it_was(value: object) -> None:
    """Any JSON text means what a JSON parser says."""
    text = json.dumps(value, ensure_ascii=False)
    found = yamltext.read(text, "x").plain()
    assert json.dumps(found) == json.dumps(value)


words = st.text("xyz -:#'\"&*?|>%@\n", max_size=8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-999, 999) | words,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(words.filter(bool), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from([None, True, False]),
)
def test_what_another_library_writes_is_read_as_it_was(value: object, flow: bool | None) -> None:
    """What PyYAML writes, in block or flow style, is read back equal."""
    assert yamltext.read(yaml.safe_dump(value, default_flow_style=flow), "x").plain() == value


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: [1\nb: 2", 2, "not valid YAML"),
        ("a: 1\nb: 2\na: 3", 3, "'a' stands twice, first in line 1"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a:\n  ? [x]\n  : 1", 2, "plain word"),
        ("a: 1\n'': 2", 2, "key is empty"),
        ("a:\n  b: !!python/name:os.system x", 2, "tags such as"),
        ("a: 1\nb: " + "[" * 60 + "]" * 60, 2, "nested deeper"),
        ("a: *nobody", 1, "anchor"),
        ("a: &a [*a]", 1, "anchor"),
        ("a: &a [1]\nb: &b [*a, *a]", 2, "alias inside"),
        ("a: 1\nb: 99999999999999999999", 2, "64 bits"),
        ("a: " + "9" * 5000, 1, "64 bits"),
        ("a: -1e999", 1, "too large"),
        ("a: &a [" + "1," * 1000 + "]\nb: [" + "*a," * 1000 + "]", 2, "more than 1,000,000"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(text: str, line: int, what: str) -> None:
    """What is no acceptable YAML is one error that names file, line and reason."""
    with pytest.raises(SpecError) as caught:
        yamltext.read(text, "s.yaml")
    assert caught.value.where == f"s.yaml:{line}"
    assert what in str(caught.value)


@pytest.mark.parametrize("text", ["a: \x00", "\ud800: 1", "x" * (yamltext.MAX_BYTES + 1)])
def test_what_is_no_text_is_refused(text: str) -> None:
    """Control characters, lone surrogates and giant texts are errors like any other."""
    with pytest.raises(SpecError, match=r"s\.yaml"):
        yamltext.read(text, "s.yaml")


def test_a_planted_object_is_not_made(tmp_path: Path) -> None:
    """A tag that would run code in an unsafe loader runs nothing."""
    trap = tmp_path / "trap"
    with pytest.raises(SpecError):
        yamltext.read(f"a: !!python/object/apply:os.mkdir ['{trap}']", "s.yaml")
    assert not trap.exists()


def test_defaults_are_what_the_reference_says() -> None:
    """A spec of two lines is complete."""
    spec = parse(HEAD, "s.yaml")
    assert (spec.replicates, spec.seed, spec.device, spec.numerics, spec.threads) == (
        1,
        0,
        "auto",
        "exact",
        1,
    )
    assert (spec.priority, spec.limits.time_s, spec.factors, spec.cells) == (0, None, {}, None)
    assert spec.params == {}


def test_other_keys_are_the_jobs_parameters() -> None:
    """What the service does not know is left to the job, as plain values."""
    spec = parse(HEAD + "steps: 3\nmodel: {a: [1e-3, off]}\n", "s.yaml")
    assert spec.params == {"steps": 3, "model": {"a": [0.001, "off"]}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["s.yaml: empty", "experiment: NAME"]),
        ("- a", ["s.yaml: not a mapping"]),
        ("expriment: a\njob: drill", ["s.yaml:1: experiment", "missing", "'expriment'"]),
        ("experiment: E7\njob: drill", ["s.yaml:1: experiment", "looks like an id"]),
        ("experiment: '12'\njob: drill", ["s.yaml:1: experiment", "looks like an id"]),
        ("experiment: a/b\njob: drill", ["s.yaml:1: experiment", "'a/b' is no name"]),
        ("experiment: 2024\njob: drill", ["s.yaml:1: experiment", "quotes"]),
        ("experiment: a\njob: dril", ["s.yaml:2: job", "Did you mean 'drill'?", "finetune"]),
        (HEAD + "stepz: 3", ["s.yaml:3: stepz", "unknown key", "Did you mean 'steps'?"]),
        (HEAD + "replicate: 3", ["s.yaml:3: replicate", "Did you mean 'replicates'?"]),
        (HEAD + "time_s: 3", ["s.yaml:3: time_s", "unknown key", "limits"]),
        (HEAD + "device: cuda", ["s.yaml:3: device", "Did you mean 'cpu'?", "auto, gpu, cpu"]),
        (HEAD + "limits:\n  time: 1", ["s.yaml:4: limits.time", "Did you mean 'time_s'?"]),
        (HEAD + "limits: 3", ["s.yaml:3: limits", "should be a mapping"]),
        (HEAD + "replicates: 0", ["s.yaml:3: replicates", "greater than or equal to 1, not 0"]),
        (HEAD + "seed: -1", ["s.yaml:3: seed", "not -1"]),
        (HEAD + "threads: 1.5", ["s.yaml:3: threads", "integer", "not 1.5"]),
        (HEAD + "steps: many", ["s.yaml:3: steps", "valid integer, not many"]),
        (HEAD + "fail_with: crsh", ["s.yaml:3: fail_with", "Did you mean 'crash'?"]),
        (HEAD + "seed: -1\nthreads: 0", ["(and 1 more error)"]),
        (HEAD + "factors:\n  lr: []", ["s.yaml:4: factors.lr", "at least 1 item"]),
        (HEAD + "factors: [1]", ["s.yaml:3: factors", "should be a mapping"]),
        (HEAD + "factors: []", ["s.yaml:3: factors", "{NAME: [VALUE, ...]}' or", "or leave"]),
        (HEAD + "factors: {score: 3}", ["s.yaml:3: factors.score", "a list, not 3. Write [3]"]),
        (HEAD + "exclude: 3", ["s.yaml:3: exclude", "'exclude: [{NAME: VALUE}, ...]'"]),
    ],
)
def test_a_bad_spec_is_one_error(text: str, expected: list[str]) -> None:
    """The error names file, line and key, says what is allowed and suggests the nearest word."""
    message = refused(text)
    assert [part for part in expected if part not in message] == []


def test_overrides_have_yaml_types_and_win() -> None:
    """`--set` values are read like the file's and replace what stands there."""
    spec = parse(
        HEAD + "steps: 3\nlimits: {time_s: 5}\nfactors: {score: [1, 2]}\n",
        "s.yaml",
        {"steps": "1e1", "limits.time_s": "7", "factors.limits.x": "[a]", "new.deep": "off"},
    )
    assert spec.params == {"steps": 10.0, "new": {"deep": "off"}}
    assert spec.limits.time_s == 7
    assert spec.factors == {"score": [1, 2], "limits.x": ["a"]}


@pytest.mark.parametrize("path", ["score", "score.low"])
@pytest.mark.parametrize(
    "design",
    ["factors: {score: [1, 2]}", "cells: [{score: 1}]", "factors: {score: [{name: a, value: 1}]}"],
)
def test_an_override_that_would_count_nowhere_is_refused(path: str, design: str) -> None:
    """What a factor sets in every cell cannot be overridden; the message says what can."""
    told = refused(HEAD + design, **{path: "3"})
    assert told.startswith(f"--set {path}: score is a factor")
    assert "factors.score=[...]" in told


def test_an_override_of_what_some_levels_set_counts() -> None:
    """A bundle may be called like a parameter and set something else."""
    spec = parse(HEAD + "factors: {steps: [{name: a, set: {noise: 1}}]}", "s.yaml", {"steps": "7"})
    assert spec.params == {"steps": 7}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("stpes", "3", ["--set stpes: unknown key", "Did you mean 'steps'?"]),
        ("steps", "x", ["--set steps: ", "valid integer, not x"]),
        ("steps", "[1", ["--set steps: not valid YAML"]),
        ("limits.tme_s", "3", ["--set limits.tme_s", "Did you mean 'time_s'?"]),
        ("job.name", "3", ["--set job.name: there is no key 'name' to set below drill"]),
        ("steps.", "3", ["--set steps.: not a key path"]),
        ("a." * 9000 + "b", "3", ["not a key path"]),
    ],
)
def test_a_bad_override_is_named(path: str, value: str, expected: list[str]) -> None:
    """An error in `--set` names the option instead of a line."""
    message = refused(HEAD, **{path: value})
    assert [part for part in expected if part not in message] == []


@given(st.text(max_size=200) | st.text("abej:[]{}-&*!? \n'\"#|>1.", max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever is written, the answer is a spec or a SpecError."""
    for candidate in (text, HEAD + text):
        try:
            spec = parse(candidate, "s.yaml")
        except SpecError as error:
            assert "s.yaml" in str(error)
        else:
            assert isinstance(spec, ExperimentSpec)


service_values = plain_values | st.dictionaries(
    st.sampled_from(["steps", "score", "arm", "threads", "name", "set"]),
    st.lists(plain_values, max_size=3),
    max_size=3,
)


@given(
    st.dictionaries(
        st.sampled_from([*SERVICE_KEYS, "steps", "score", "fail_with", "fail_at_step"]),
        service_values,
        max_size=4,
    )
)
def test_no_values_raise_anything_else(values: dict[str, object]) -> None:
    """Whatever values keys have, planning ends in a plan or a SpecError."""
    document = {"experiment": "x", "job": "drill", **values}
    text = yaml.safe_dump(document, allow_unicode=True)
    try:
        plan = make_plan(parse(text, "s.yaml"), Path("/"), device_kind="cpu")
    except SpecError as error:
        assert "s.yaml" in str(error)
    else:
        assert len(plan.places) >= 1


DEMO = Path(__file__).parent.parent / "examples" / "solar-cells.yaml"
DEMO_TEXT = DEMO.read_text()
FINETUNE_PATHS = sorted(parameter_paths(catalog.job("finetune").Params))


@given(st.sampled_from(FINETUNE_PATHS), plain_values, st.booleans())
def test_no_parameter_raises_anything_else(path: str, value: object, varied: bool) -> None:
    """Any value at any parameter, or as a level of it, plans or is a SpecError."""
    text = json.dumps([value, "x"] if varied else value, ensure_ascii=False)
    try:
        spec = parse(DEMO_TEXT, "s.yaml", {f"factors.{path}" if varied else path: text})
        plan = make_plan(spec, DEMO.parent, device_kind="cpu")
    except SpecError as error:
        assert str(error).startswith(("s.yaml", "--set"))
    else:
        assert plan.cells


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_line_of_every_key_is_known(keys: list[str]) -> None:
    """Nested keys are found on the line they were written on."""
    text = "".join(f"{'  ' * depth}{key}:\n" for depth, key in enumerate(keys))
    document = yamltext.read("# comment\n" + text, "s")
    for depth in range(1, len(keys) + 1):
        assert document.where(keys[:depth]) == f"s:{depth + 1}: {dotted(keys[:depth])}"
