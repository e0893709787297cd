"""Plans: which runs a spec leads to, and when two of them are the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd import catalog, seeds
from ftd.errors import ConfigError, SpecError, UnknownName
from ftd.planning.plan import Plan, digest, library_versions, make_plan
from ftd.planning.schema import schema
from ftd.spec.experiment import SERVICE_KEYS, parse

ROOT = Path(__file__).parent.parent
HEAD = "experiment: trial\njob: drill\n"


def planned(text: str, *, device_kind: str = "cpu", fresh_nonce: str | None = None) -> Plan:
    """The plan of a drill's spec."""
    spec = parse(HEAD + text, "s.yaml")
    return make_plan(spec, Path("/"), device_kind=device_kind, fresh_nonce=fresh_nonce)


def keys(text: str, **options: Any) -> list[str]:
    """The keys of a drill's runs."""
    return [run.key for run in planned(text, **options).runs]


def test_every_cell_runs_once_per_replicate() -> None:
    """Places are cells times replicates, each with the run it needs."""
    plan = planned("factors: {score: [1, 2, 3]}\nreplicates: 2\nlimits: {time_s: 9}")
    assert [(p.cell, p.replicate, p.factors) for p in plan.places] == [
        (cell, replicate, {"score": float(cell + 1)}) for cell in range(3) for replicate in range(2)
    ]
    assert [run.key for run in plan.runs] == [place.run_key for place in plan.places]
    assert plan.cells == ({"score": 1.0}, {"score": 2.0}, {"score": 3.0})
    assert (plan.name, plan.job, plan.replicates) == ("trial", "drill", 2)
    assert plan.primary_metric == "test/score"
    assert {run.time_limit_s for run in plan.runs} == {9.0}


def test_a_run_holds_all_that_a_worker_needs() -> None:
    """Parameters are resolved JSON values; seeds belong to the replicate alone."""
    plan = planned("steps: 1e1\nseed: 5\nreplicates: 2\nnumerics: fast\nthreads: 2")
    first, second = plan.runs
    assert json.loads(json.dumps(first.params)) == first.params
    assert (first.params["steps"], first.params["width"]) == (10, 16)
    assert (first.numerics, first.threads, first.device_kind) == ("fast", 2, "cpu")
    assert (first.seeds, second.seeds) == (seeds.streams(5, 0), seeds.streams(5, 1))


def test_factors_show_typed_values_and_names() -> None:
    """A value is shown as the parameter understood it, a named level by its name."""
    plan = planned(
        "factors: {score: ['1e-1', {name: high, value: 9}], numerics: [fast], threads: [2]}\n"
    )
    assert plan.cells == (
        {"score": 0.1, "numerics": "fast", "threads": 2},
        {"score": "high", "numerics": "fast", "threads": 2},
    )
    assert {(run.numerics, run.threads) for run in plan.runs} == {("fast", 2)}


def test_two_places_may_need_one_run() -> None:
    """Cells that differ only in what cannot matter share a run."""
    plan = planned("factors: {fail_with: [error, memory], score: [1, 2]}")
    assert len(plan.places) == 4
    assert len(plan.runs) == 2
    assert plan.places[0].run_key == plan.places[2].run_key


DEFAULTS = {
    "steps": 10,
    "score": 0.5,
    "noise": 0.05,
    "fail_at_step": None,
    "fail_with": "error",
    "seed": 0,
    "threads": 1,
    "numerics": "exact",
    "description": "",
    "priority": 0,
    "limits": {},
}
contents = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.sampled_from([10, 10.0, 11]),
        "score": st.sampled_from([0.5, 0.25]),
        "noise": st.sampled_from([0.05, 5e-2, 0]),
        "fail_at_step": st.sampled_from([None, 3]),
        "fail_with": st.sampled_from(["error", "crash"]),
        "seed": st.sampled_from([0, 1]),
        "threads": st.sampled_from([1, 2]),
        "numerics": st.sampled_from(["exact", "fast"]),
        "description": st.sampled_from(["", "words"]),
        "priority": st.sampled_from([0, 5]),
        "limits": st.sampled_from([{}, {"time_s": 4}]),
    },
)


def determining(content: dict[str, Any]) -> dict[str, Any]:
    """What of a spec determines a drill's result, said independently of the code under test."""
    full = {**DEFAULTS, **content}
    for key in ("description", "priority", "limits"):
        del full[key]
    if full["fail_at_step"] is None:
        del full["fail_with"]
    return full


def written(content: dict[str, Any]) -> str:
    """A spec's lines."""
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in content.items())


@given(contents, contents)
def test_keys_are_equal_exactly_when_the_question_is(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Two runs share a key if and only if everything that determines their result is equal."""
    equal = determining(a) == determining(b)
    assert (keys(written(a)) == keys(written(b))) is equal


@given(st.permutations(["steps: 3", "score: 0.1", "seed: 4", "factors: {noise: [0.1, 0.2]}"]))
def test_the_order_of_keys_does_not_matter(lines: list[str]) -> None:
    """A spec's lines can be moved about."""
    text = "steps: 3\nscore: 0.1\nseed: 4\nfactors: {noise: [0.1, 0.2]}"
    assert planned("\n".join(lines)).spec_digest == planned(text).spec_digest
    assert keys("\n".join(lines)) == keys(text)


def test_other_experiments_ask_the_same_question() -> None:
    """A cell written as a factor, a bundle, a parameter or an override has one key everywhere."""
    plain = keys("score: 0.25\nsteps: 4")
    assert keys("steps: 4\nfactors: {score: [0.5, 0.25]}")[1:] == plain
    assert keys("factors: {arm: [{name: a, set: {score: 0.25, steps: 4}}]}") == plain
    assert keys("cells: [{steps: 4, score: 0.25}]") == plain
    other = parse("experiment: other\njob: drill\nscore: 0.25", "t.yaml", {"steps": "4"})
    again = make_plan(other, Path("/tmp"), device_kind="cpu")
    assert [run.key for run in again.runs] == plain


def test_the_device_and_a_nonce_are_part_of_the_key() -> None:
    """CPU and GPU runs are different runs, and a fresh one equals nothing."""
    assert keys("", device_kind="gpu") != keys("")
    assert keys("", fresh_nonce="a") not in (keys(""), keys("", fresh_nonce="b"))


def test_replicates_have_keys_of_their_own() -> None:
    """More replicates add runs and keep the ones there are."""
    assert keys("replicates: 5")[:3] == keys("replicates: 3")
    assert len(set(keys("replicates: 5"))) == 5


def test_keys_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known spec has a known key: whoever changes the format must raise KEY_FORMAT."""
    monkeypatch.setattr(
        "ftd.planning.plan.library_versions",
        lambda: {"torch": "2.7", "torchvision": None, "numpy": "2.0"},
    )
    assert keys("seed: 1") == ["cab1edd3caee39201c8738bd9484d1729ffaf0873c4c649ccd893d4afa24befd"]


def test_digest_ignores_the_order_of_keys_and_nothing_else() -> None:
    """Equal JSON values have equal digests, different ones do not."""
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    distinct = [{"a": 1}, {"a": 1.5}, {"a": True}, {"a": "1"}, {"a": [2, 1]}, {"a": [1, 2]}]
    assert len({digest(value) for value in distinct}) == len(distinct)


def test_library_versions_are_read_without_importing() -> None:
    """Versions are major.minor; an absent library is None."""
    import numpy

    assert library_versions()["numpy"] == ".".join(numpy.__version__.split(".")[:2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("factors:\n  scor: [1]", ["s.yaml:4: factors.scor[0]", "mean 'score'?", "name: WORD"]),
        ("factors:\n  score: [1, x]", ["s.yaml:4: factors.score[1]", "valid number, not x"]),
        ("factors:\n  score:\n  - 0.1\n  - '0.1'", ["s.yaml:6: factors.score[1]", "the same"]),
        ("factors: {seed: [1, 2]}", ["factors.seed[0]", "cannot vary"]),
        ("factors: {limits.time_s: [1]}", ["factors.limits.time_s[0]", "cannot vary"]),
        ("factors: {threads: [1, 0]}", ["factors.threads[1]", "greater than or equal to 1"]),
        ("factors: {score.x: [1]}", ["factors.score.x[0]", "valid number, not {x: 1}"]),
        ("score: 1\nfactors: {score.x: [1]}", ["s.yaml:4: factors.score.x[0]", "no key 'x'"]),
        (
            "factors:\n  arm:\n  - name: a\n    set:\n      score: 1\n      scoer: 2",
            ["s.yaml:8: factors.arm[0].set.scoer", "Did you mean 'score'?"],
        ),
        ("factors: {" + "steps" + ".a" * 400 + ": [1]}", ["too long"]),
    ],
)
def test_a_bad_level_is_named(text: str, expected: list[str]) -> None:
    """What is wrong in one cell is told with the line of the level that did it."""
    with pytest.raises(SpecError) as caught:
        planned(text)
    assert [part for part in expected if part not in str(caught.value)] == []


def test_a_fault_in_another_file_is_told_with_its_place(tmp_path: Path) -> None:
    """Which line of the manifest, besides which spec."""
    manifest = tmp_path / "cells.csv"
    manifest.write_text("path,label,split\na.png,x,train\nb.png,y,trian\n")
    text = (
        "experiment: e\njob: finetune\nmodel: {name: mini8, weights: none}\nlayers: R(1-8)\n"
        f"target: {{dataset: csv, file: {manifest}}}\ntrain: {{epochs: 1}}\n"
    )
    with pytest.raises(SpecError) as caught:
        make_plan(parse(text, "s.yaml"), Path("/"), device_kind="cpu", fresh_nonce=None)
    told = str(caught.value)
    assert told.startswith("s.yaml: ") and f"{manifest}:3" in told
    assert "'trian' is none of train, val, test" in told


def test_jobs_are_found_by_name_without_torch() -> None:
    """Planning imports neither torch nor numpy."""
    program = (
        "import sys, pathlib; from ftd import catalog\n"
        "from ftd.planning import plan, schema\n"
        "from ftd.spec import experiment\n"
        "jobs = [catalog.job(name) for name in catalog.job_names()]\n"
        f"path = pathlib.Path({str(ROOT / 'examples' / 'solar-cells.yaml')!r})\n"
        "s = experiment.parse(path.read_text(), 's.yaml')\n"
        "plan.make_plan(s, pathlib.Path('/'), device_kind='cpu')\n"
        "heavy = ('torch', 'torchvision', 'numpy', 'huey', 'peewee')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_an_unknown_job_is_told_with_the_nearest() -> None:
    """The error lists the jobs there are."""
    with pytest.raises(UnknownName, match="Did you mean 'finetune'"):
        catalog.job("finetun")


def test_a_folder_that_hides_the_jobs_is_noticed(tmp_path: Path) -> None:
    """A package `jobs` of somebody else's is named instead of being imported as ours."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("")
    program = (
        "from ftd import catalog, errors\n"
        "try: catalog.job('drill')\n"
        "except errors.ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert f"{tmp_path}/jobs hides the package 'jobs'" in done.stdout
    assert issubclass(ConfigError, Exception)


@pytest.mark.parametrize("name", catalog.job_names())
def test_no_parameter_is_called_like_a_key_of_the_service(name: str) -> None:
    """A spec's top level has room for both."""
    assert not set(catalog.job(name).Params.model_fields) & set(SERVICE_KEYS)


@pytest.mark.parametrize("name", catalog.job_names())
def test_the_schema_describes_every_key(name: str) -> None:
    """The JSON schema holds the service's keys and the job's parameters, all explained."""
    found = schema(name)
    properties = found["properties"]
    assert set(properties) == set(SERVICE_KEYS) | set(catalog.job(name).Params.model_fields)
    assert properties["job"]["enum"] == [name]
    assert found["additionalProperties"] is False
    for key, described in properties.items():
        inner = described.get("$ref", "").rpartition("/")[2]
        assert described.get("description") or found["$defs"][inner].get("description"), key
    json.dumps(found)


def test_the_schema_without_a_job_lists_the_jobs() -> None:
    """`ftd schema` alone describes the service's keys."""
    assert schema()["properties"]["job"]["examples"] == catalog.job_names()


IMAGES = """\
experiment: own
job: finetune
model: {name: resnet18, weights: {file: ../net.pth}}
target: {dataset: folder, folder: ../images}
train: {epochs: 1}
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("", ""), "s.yaml:3: model.weights.file: no weights file at"),
        (("resnet18", "resnet19"), "s.yaml:3: model.name: no network is called 'resnet19'"),
        (("{file: ../net.pth}", "imagenet"), "s.yaml:4: target.folder: there is no folder"),
        (("../images", "../given"), "s.yaml:3: model.weights.file"),
        (("../images}", ".., split: given}"), "s.yaml:4: target.split: "),
    ],
)
def test_what_is_missing_outside_is_told_with_its_line(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    """Files, folders and networks that are not there are named with the line that asks for them."""
    text = IMAGES.replace(*change)
    if "split" in text:
        text = text.replace("{file: ../net.pth}", "imagenet")
    with pytest.raises(SpecError) as caught:
        make_plan(parse(text, "s.yaml"), tmp_path / "specs", device_kind="cpu")
    assert str(caught.value).startswith(says)


def test_the_demo_asks_twelve_questions() -> None:
    """Two treatments by two sizes by three replicates, shown as they were written."""
    text = (ROOT / "examples" / "solar-cells.yaml").read_text()
    plan = make_plan(parse(text, "solar-cells.yaml"), ROOT / "examples", device_kind="cpu")
    assert len(plan.runs) == len(plan.places) == 12
    assert plan.cells[0] == {"layers": "F(1-last-1)R(last)", "target.per_class": 10}
    assert plan.cells[3] == {"layers": "FT(1-last-1)R(last)", "target.per_class": 40}
    assert plan.primary_metric == "test/auroc"
    assert set(plan.runs[0].inputs) == {"target", "weights"}


def test_a_misspelled_word_shows_the_other_forms_too() -> None:
    """Where a word or a mapping may stand, both are said; a wrong key is told by itself."""
    text = "experiment: a\njob: finetune\nlayers: FT(1-)\nmodel: {name: alexnet, weights: %s}\n"

    def told(weights: str) -> str:
        with pytest.raises(SpecError) as caught:
            make_plan(parse(text % weights, "s.yaml"), ROOT, device_kind="cpu")
        return str(caught.value)

    allowed = "Did you mean 'imagenet'? Allowed: imagenet, none, {file: ...}, {run: ...}"
    assert allowed in told("imagnet")
    assert "model.weights.fil: unknown key 'fil'" in told("{fil: x}")
    assert "model.weights.run: string should match" in told("{run: -12x}")
    assert "model.weights.key_map: unknown key 'key_map'" in told("{run: r1, key_map: {}}")
