"""Shared fragments: files whose keys a spec takes over, and that travel with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.cli.main import main
from ftd.daemon.submit import EnqueueRequest
from ftd.errors import SpecError
from ftd.layout import Home
from ftd.ledger.db import open_ledger
from ftd.ledger.models import Experiment
from ftd.planning.plan import make_plan
from ftd.spec.experiment import ExperimentSpec, parse
from ftd.spec.includes import MAX_FRAGMENTS, fragments, merged

HEAD = "experiment: trial\njob: drill\n"


def written(folder: Path, **texts: str) -> None:
    """Files NAME.yaml with these texts."""
    for name, text in texts.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def read(folder: Path, text: str) -> ExperimentSpec:
    """A spec that stands in `folder`, with what it includes."""
    return parse(text, "s.yaml", None, fragments(text, "s.yaml", folder))


def refused(folder: Path, text: str) -> str:
    """What is said about a spec in `folder` that cannot be."""
    with pytest.raises(SpecError) as caught:
        make_plan(read(folder, text), folder, device_kind="cpu")
    return str(caught.value)


def test_a_fragment_fills_in_what_the_spec_leaves_out(tmp_path: Path) -> None:
    """Mappings merge to any depth; the spec's own values, lists among them, count."""
    written(
        tmp_path,
        base="steps: 7\nnoise: 0.5\nlimits: {time_s: 9}\nfactors: {score: [1], width: [4, 5]}",
    )
    spec = read(tmp_path, HEAD + "include: [base.yaml]\nnoise: 0.1\nfactors: {score: [2, 3]}")
    assert spec.params == {"steps": 7, "noise": 0.1}
    assert spec.limits.time_s == 9
    assert spec.factors == {"score": [2, 3], "width": [4, 5]}
    assert spec.include == []


def test_later_fragments_win_over_earlier_ones(tmp_path: Path) -> None:
    """And a fragment over what it includes itself."""
    written(
        tmp_path, a="steps: 1\nwidth: 1", b="include: [c.yaml]\nsteps: 2", c="steps: 3\nscore: 3"
    )
    spec = read(tmp_path, HEAD + "include: [a.yaml, b.yaml]")
    assert spec.params == {"steps": 2, "width": 1, "score": 3}
    assert read(tmp_path, HEAD + "include: [b.yaml, a.yaml]").params["steps"] == 1


values = st.recursive(
    st.integers(0, 3) | st.none(),
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2)
    ),
    max_leaves=6,
)
mappings = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def deeply(under: Any, over: Any) -> Any:
    """The merge, said independently."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return {
        key: deeply(under[key], over[key]) if key in under and key in over
        else over[key] if key in over else under[key]
        for key in [*under, *(key for key in over if key not in under)]
    }  # fmt: skip


@given(st.lists(mappings, min_size=1, max_size=3), mappings)
def test_merging_is_deep(parts: list[dict[str, Any]], own: dict[str, Any]) -> None:
    """Whatever the files hold, the result is the fold of them all, the spec's own last."""
    texts = {f"{index}.yaml": json.dumps(part) for index, part in enumerate(parts)}
    text = json.dumps({"include": list(texts), **own})
    expected: Any = {}
    for part in [*parts, own]:
        expected = deeply(expected, part)
    assert merged(text, "s.yaml", texts).plain() == expected


def test_a_fragment_includes_relative_to_itself(tmp_path: Path) -> None:
    """Files are found beside the file that names them; relative data paths stay the spec's."""
    written(tmp_path, parts__one="include: [two.yaml, ../three.yaml]", parts__two="steps: 2")
    written(tmp_path, three="width: 3")
    spec = read(tmp_path, HEAD + "include: [parts/one.yaml]")
    assert spec.params == {"steps": 2, "width": 3}


def test_errors_name_the_fragment(tmp_path: Path) -> None:
    """File and line are those where the value was written."""
    written(tmp_path, base="steps: 3\nwidht: 4", level="factors:\n  score:\n  - 1\n  - much")
    assert "base.yaml:2: widht: unknown key" in refused(tmp_path, HEAD + "include: [base.yaml]")
    said = refused(tmp_path, HEAD + "include: [level.yaml]")
    assert "level.yaml:4: factors.score[1]" in said
    said = refused(tmp_path, HEAD + "include: [level.yaml]\nwidth: x")
    assert "s.yaml:4: width" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("include: other.yaml", ["s.yaml:3: include", "should be a list, not other.yaml"]),
        ("include:\n- 3", ["s.yaml:4: include[0]", "no file name"]),
        ("include: [there/not.yaml]", ["s.yaml:3: include[0]", "cannot read there/not.yaml"]),
        ("include: [folder]", ["s.yaml:3: include[0]", "folder"]),
        ("include: [pipe]", ["s.yaml:3: include[0]", "pipe"]),
        ("include: [bytes]", ["s.yaml:3: include[0]", "not UTF-8"]),
        ("include: [list.yaml]", ["list.yaml: not a mapping"]),
        ("include: [empty.yaml]", ["empty.yaml: empty"]),
        ("include: [broken.yaml]", ["broken.yaml:2", "not valid YAML"]),
        ("include: [self.yaml]", ["self.yaml:1: include[0]", "self.yaml includes itself"]),
        ("include: [ring.yaml]", ["gnir.yaml", "ring.yaml includes itself", "ring.yaml -> "]),
        ("include: [/nowhere/x.yaml]", ["s.yaml:3", "/nowhere/x.yaml"]),
    ],
)
def test_what_cannot_be_included(tmp_path: Path, text: str, expected: list[str]) -> None:
    """Cycles, folders, pipes, what is no text or no mapping: one error with the place."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    written(
        tmp_path, list="[1]", empty="", broken="a: 1\nb: ]", self="include: [self.yaml]",
        ring="include: [gnir.yaml]", gnir="include: [./ring.yaml]",
    )  # fmt: skip
    message = refused(tmp_path, HEAD + text)
    assert [part for part in expected if part not in message] == []


def test_so_many_fragments_and_no_more(tmp_path: Path) -> None:
    """A tree of includes that doubles at every level ends."""
    for level in range(12):
        text = f"include: [f{level + 1}.yaml, f{level + 1}.yaml]" if level < 11 else "steps: 1"
        written(tmp_path, **{f"f{level}": text})
    assert f"more than {MAX_FRAGMENTS} included" in refused(tmp_path, HEAD + "include: [f0.yaml]")


def test_included_files_are_no_archive(tmp_path: Path) -> None:
    """They are kept with every experiment, so that together they are as long as a spec at most."""
    written(tmp_path, **{name: f"description: {'x' * (3 << 20)}" for name in "abc"})
    assert read(tmp_path, HEAD + "include: [a.yaml, b.yaml, a.yaml]").description
    said = refused(tmp_path, HEAD + "include: [a.yaml, b.yaml, c.yaml]")
    assert "s.yaml:3: include[2]: the included files are longer than 8 MiB together" in said


def test_nothing_is_included_by_override(tmp_path: Path) -> None:
    """--set include=... would read files that were never sent along."""
    with pytest.raises(SpecError, match="before anything is set"):
        parse(HEAD, "s.yaml", {"include": "[x.yaml]"})


def test_an_override_counts_over_a_fragment(tmp_path: Path) -> None:
    """--set comes last."""
    written(tmp_path, base="steps: 7")
    text = HEAD + "include: [base.yaml]"
    assert parse(text, "s.yaml", {"steps": "3"}, fragments(text, "s", tmp_path)).params == {
        "steps": 3
    }


def test_an_experiment_can_be_planned_again_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger keeps spec, fragments and overrides: the same runs follow from them alone."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    written(tmp_path, base="steps: 7\nwidth: 3", spec=HEAD + "include: [base.yaml]\nreplicates: 2")
    assert main(["enqueue", str(tmp_path / "spec.yaml"), "--set", "width=5", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    for path in tmp_path.glob("*.yaml"):
        path.unlink()
    ledger = open_ledger(Home(tmp_path / "home"))
    kept = ledger.row(Experiment.select().where(Experiment.id == 1))
    ledger.close()
    assert kept is not None
    request = EnqueueRequest(spec_text=kept["spec_text"], base=kept["base"], **kept["request"])
    spec = parse(request.spec_text, request.source, request.overrides, request.fragments)
    plan = make_plan(spec, Path(request.base), device_kind="cpu")
    assert plan.spec_digest == kept["spec_digest"]
    assert len(plan.runs) == len(first["runs"]) == 2
    assert {(run.params["steps"], run.params["width"]) for run in plan.runs} == {(7, 5)}


def test_a_changed_fragment_is_a_new_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The spec's own text is the same, the question is not; a comment changes nothing."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    written(tmp_path, base="steps: 7", spec=HEAD + "include: [base.yaml]")

    def enqueued() -> tuple[int, int]:
        assert main(["enqueue", str(tmp_path / "spec.yaml"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        return found["revision"], found["new"]

    assert enqueued() == (1, 1)
    written(tmp_path, base="steps: 7  # seven")
    assert enqueued() == (1, 0)
    written(tmp_path, base="steps: 8")
    assert enqueued() == (2, 1)
