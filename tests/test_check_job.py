"""The contract test for authors of jobs: a sound one passes, each way to break it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ftd.check_job import check_job
from ftd.cli.main import main
from ftd.errors import ContractError, InputError
from ftd.trials.entries import (
    CHANGED,
    LEFT_OUT,
    Entry,
    altered,
    contents_of,
    entries_in,
    seal_contents,
)
from ftd.trials.interruptions import midway
from tests.interpreters import make_interpreter

EXAMPLES = Path(__file__).parent.parent / "examples" / "own-job"

# Adds up a number a step, keyed by the step; everything it needs is in its checkpoints.
TALLY = '''
import json
from ftd.job import Completed, Job, Params
from ftd.seeds import keyed_hash

class TallyParams(Params):
    """How long."""
    steps: int = 4

class Tally(Job[TallyParams]):
    """Counts."""
    Params = TallyParams
    def primary_metric(self, params):
        """The sum."""
        return "test/sum"
    def run(self, params, context):
        """A number per step."""
        found = context.restore()
        step, total = json.loads(found.path("state.json").read_text())[:2] if found else (0, 0)
        while step < params.steps:
            step, total = step + 1, total + keyed_hash(context.seeds["order"], step) % 100
            context.metric("val/sum", total, step)
            state = [step, total]
            def save(path):
                path.write_text(json.dumps(state))
            context.checkpoint(step, lambda: {"state.json": save})
        return Completed({"test/sum": total}, f"{total:064}", step)
'''


def check(folder: Path, code: str, **options: float) -> None:
    """Check the job in `code`."""
    (folder / "tally.py").write_text(code)
    sizes = {"num_places": 2, "num_entries": 4} | options
    check_job("./tally.py:Tally", {"steps": 4}, base=folder, **sizes)  # type: ignore[arg-type]


def test_a_sound_job_passes_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's path starts here, the parameters' where their file is; each step is told."""
    monkeypatch.chdir(EXAMPLES)
    short = tmp_path / "short.yaml"
    short.write_text("steps: 3\ningredients: 1\n")
    options = ["--params", str(short), "--places", "2", "--entries", "3"]
    assert main(["check-job", "./soup.py:Soup", *options]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "left at 1, 3 of 3 places" in told[2]
    assert "(3 of 5 were tried)" in told[3]
    assert told[4] == "soup.py:Soup keeps its contract"
    short.write_text("steps: 0\n")
    assert main(["check-job", "./soup.py:Soup", *options]) == 2
    assert f"{short}:1: steps" in capsys.readouterr().err


READ = 'json.loads(found.path("state.json").read_text())'
SAVE = "context.checkpoint("


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        # (what stands in the job, what stands there instead, what is said)
        (
            "    def primary_metric",
            "    def identity(self, params):\n        return {'pid': __import__('os').getpid()}\n"
            "    def primary_metric",
            "planned twice, it is not the same run: key differ. Let identity()",
        ),
        ('return "test/sum"', 'return "test/top1"', "test/top1 is not among .* are test/sum"),
        ("% 100", "% 100 + __import__('os').getpid()", "run twice, it ends differently"),
        (
            "step, total = step + 1",
            "raise ValueError('no luck'); step, total = step + 1",
            "end: ValueError: no luck",
        ),
        ("context.restore()", "None", "stop@1, it begins again: call context.restore"),
        (READ, f"({READ}[0], 0)", "stop@1, it ends differently: metric test/sum was"),
        (
            'context.metric("val/sum", total, step)',
            'context.metric("val/resumed", float(found is not None), 4)',
            "val/resumed of step 4 was 0.0, and 1.0 in a later attempt",
        ),
        (
            SAVE,
            "with __import__('contextlib').suppress(BaseException): " + SAVE,
            "asked to leave at its place 1, it goes on to its end: let Stopped",
        ),
        (
            "json.dumps(state)",
            "json.dumps([*state, 1])",
            "no difference when state.json:2 in its checkpoints is changed",
        ),
        ("while step <", "while True: pass\n        while step <", "did not end within 3 s"),
    ],
)
def test_each_way_to_break_the_contract_is_named(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    """What is wrong with a job, and what to do about it."""
    assert before in TALLY
    with pytest.raises(ContractError, match=said):
        check(tmp_path, TALLY.replace(before, after), timeout_s=3 if "while" in after else 600)


# Counts as well; what it has counted is in the store, and it can be left where it is counting.
STORED = TALLY.replace(
    TALLY[TALLY.index("        found = context") : TALLY.index("        return Completed")],
    """        context.restore()
        total = 0
        for step in range(1, params.steps + 1):
            key = {"step": step, "seed": context.seeds["order"]}
            def make():
                context.checkpoint(step, dict)
                number = keyed_hash(context.seeds["order"], step) % 100
                return {"number": lambda path: path.write_text(str(number))}
            total += int((context.store.entry("number", key, make) / "number").read_text())
""",
)


def test_a_job_that_keeps_what_it_does_in_the_store_is_sound(tmp_path: Path) -> None:
    """Its checkpoints are empty, and a run that finds all of it done has fewer places to leave."""
    (tmp_path / "tally.py").write_text(STORED)
    checked = check_job("./tally.py:Tally", {"steps": 4}, base=tmp_path, num_places=2)
    assert "left at 1, 4 of 4 places" in checked.lines[2]
    assert "what it has done is in the store" in checked.lines[3]


def test_the_middle_is_that_of_the_steps() -> None:
    """However many places there are before the first step and behind the last."""
    assert midway([0, 0, 0, 1, 2, 3, 3, 3, 3, 3]) == 5
    assert midway([0]) == midway([7, 7]) == 1


def test_a_job_that_leaves_by_the_clock_is_not_judged(tmp_path: Path) -> None:
    """No two runs of a command have the same places, so nothing is said of its contract."""
    with pytest.raises(InputError, match="'command' cannot be checked"):
        check_job("command", {"command": ["true"]}, base=tmp_path)


def test_a_job_without_places_to_leave_is_told_so(tmp_path: Path) -> None:
    """It breaks nothing, but whoever wrote it should know."""
    (tmp_path / "tally.py").write_text(TALLY.replace("context.checkpoint", "(lambda *_: 0)"))
    checked = check_job("./tally.py:Tally", {"steps": 4}, base=tmp_path)
    assert "never calls context.checkpoint" in checked.lines[-1]


def test_another_interpreter_is_checked_with(tmp_path: Path) -> None:
    """The service's keys count as in a spec: the job's own python executes it."""
    python = make_interpreter(tmp_path / "venv")
    is_it = f"__import__('sys').executable == {str(python)!r}"
    (tmp_path / "tally.py").write_text(TALLY.replace("% 100", f"% (100 if {is_it} else 0)"))
    sizes = {"num_places": 1, "num_entries": 1}
    with pytest.raises(ContractError, match="ZeroDivisionError"):
        check_job("./tally.py:Tally", {"steps": 1}, base=tmp_path, **sizes)
    checked = check_job(
        "./tally.py:Tally", {"steps": 3, "python": str(python)}, base=tmp_path, **sizes
    )
    assert "left at 2 of 3 places" in checked.lines[2]


def test_what_cannot_be_planned_is_the_author_s_error(tmp_path: Path) -> None:
    """A wrong name and a wrong parameter are told as they are of a spec."""
    with pytest.raises(InputError, match="Did you mean 'Tally'") as caught:
        (tmp_path / "tally.py").write_text(TALLY)
        check_job("./tally.py:Talli", base=tmp_path)
    assert "--set" not in str(caught.value)
    with pytest.raises(InputError, match="params:1: step: unknown key 'step'"):
        check_job("./tally.py:Tally", {"step": 4}, base=tmp_path)


def test_a_spec_in_the_job_s_place_is_told_where_it_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Other commands take the file first; here the message is the command to write."""
    assert main(["check-job", "short.yaml"]) == InputError.exit_code
    assert "ftd check-job JOB --params short.yaml" in capsys.readouterr().err


# --- entries of checkpoints

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
CONTENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(content=CONTENTS)
def test_each_entry_is_left_out_and_changed_alone(content: object) -> None:
    """A copy differs in the one entry, the original in nothing."""
    contents = {"state.json": content, "other.bin": b"x"}
    before = json.dumps(content)
    entries = set(entries_in(contents))
    for entry in entries:
        (without,) = altered(contents, entry, LEFT_OUT)
        assert without != contents
        changed = [*altered(contents, entry, CHANGED)]
        assert changed and all(other != contents for other in changed)
        kept = entries - {entry}
        assert all(kept <= set(entries_in(other)) for other in changed)
    assert json.dumps(content) == before


def test_tensors_are_entries_and_stay_tensors(tmp_path: Path) -> None:
    """Read and written without torch, they are what its library reads and writes."""
    tensors = {
        "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "zero": torch.zeros(3, dtype=torch.bfloat16),
        "flag": torch.zeros(2, dtype=torch.bool),
        "count": torch.tensor(7),
        "none": torch.zeros(0),
    }
    (tmp_path / "before").mkdir()
    save_file(tensors, tmp_path / "before" / "a.safetensors", {"made": "by a test"})
    contents = contents_of(tmp_path / "before")
    assert set(entries_in(contents)) == {Entry("a.safetensors", (name,)) for name in tensors}
    seal_contents(tmp_path / "same", contents, {"step": 1})
    same = load_file(tmp_path / "same" / "a.safetensors")
    assert set(same) == set(tensors)
    assert all(torch.equal(same[name], tensors[name]) for name in tensors)
    for name in ("weight", "zero", "flag", "count"):
        (other,) = altered(contents, Entry("a.safetensors", (name,)), CHANGED)
        seal_contents(tmp_path / name, other, {"step": 1})
        found = load_file(tmp_path / name / "a.safetensors")
        assert found[name].dtype == tensors[name].dtype
        assert {key for key in found if not torch.equal(found[key], tensors[key])} == {name}
