"""The job ``command``: programs that know nothing of ftd, under a real daemon."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import InputError
from ftd.process import identity_of
from jobs import placeholders
from jobs.command import Command
from jobs.metric_lines import Row, row_in
from tests.homes import LiveHome, outcome_of, serving

# Trains: counts to `--steps`, saves every second step and when asked to leave, goes on from there.
# At the steps `--waits` it waits to be interrupted, unless it resumes there.
TRAIN = """
import argparse, json, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
for name in ("steps", "lr", "seed", "waits", "out", "checkpoints"):
    parser.add_argument("--" + name)
args = parser.parse_args()
leaving = []
signal.signal(signal.SIGTERM, lambda *_: leaving.append(1))
saved = pathlib.Path(args.checkpoints, "state.json")
began, total = json.loads(saved.read_text()) if saved.exists() else (0, 0.0)
step = began

def save():
    aside = saved.with_suffix(".tmp")
    aside.write_text(json.dumps([step, total]))
    os.replace(aside, saved)

print("pid", os.getpid(), flush=True)
print("resumed from", step, file=sys.stderr)
while step < int(args.steps):
    step, total = step + 1, total + float(args.lr) * (int(args.seed) % 1000 + step)
    print("ftd-metric", "val/total", total, step)
    if step % 2 == 0:
        save()
    while str(step) in args.waits.split() and step > began and not leaving:
        time.sleep(0.01)
    if leaving:
        time.sleep(0.3)
        save()
        print("left at", step)
        sys.exit(0)
print(json.dumps({"metric": "test/total", "value": total, "step": step}))
out = pathlib.Path(args.out, "weights")
out.mkdir(exist_ok=True)
(out / "final.json").write_text(json.dumps(total))
"""
ARGS = (
    '["--steps", "{param.steps}", "--lr", "{param.lr}", "--seed", "{seed}", "--waits", '
    '"{param.waits}", "--out", "{artifact_dir}", "--checkpoints", "{checkpoint_dir}"]'
)


def spec(folder: Path, *, steps: int = 6, waits: str = "none", more: str = "") -> str:
    """A spec that executes TRAIN."""
    script = folder / "train.py"
    script.write_text(TRAIN)
    return (
        f"experiment: legacy\njob: command\nscript: {script}\nargs: {ARGS}\nmetric: test/total\n"
        f"param: {{steps: {steps}, lr: 0.5, waits: {waits}}}\n{more}"
    )


def program(text: str, more: str = "") -> str:
    """A spec that executes a line of shell."""
    return f"experiment: line\njob: command\ncommand: [sh, -c, {json.dumps(text)}]\n{more}"


def log_of(home: LiveHome, run: str, attempt: int = 1) -> str:
    """What an attempt printed."""
    return (home.root / f"runs/{run}/attempts/{attempt}/log.txt").read_text()


def pids_in(log: str) -> list[int]:
    """The processes that a program said it is: whole lines only."""
    return [int(pid) for line in re.findall(r"^pids? (.+)\n", log, re.M) for pid in line.split()]


def test_a_script_is_a_run(tmp_path: Path) -> None:
    """Its parameters are factors, its seeds the replicates', its metrics and files are kept."""
    home = LiveHome(tmp_path / "home")
    home.enqueue(spec(tmp_path, more="factors: {param.lr: [0.5, 1e-3]}\nreplicates: 2\n"))
    assert home.finish() == 0, home.log()
    runs = home.runs()
    assert [run["state"] for run in runs] == ["done"] * 4
    totals = [run["metrics"]["test/total"] for run in runs]
    assert len(set(totals)) == 4
    assert totals[0] / totals[2] == pytest.approx(0.5 / 1e-3)  # of one replicate
    about = home.json("show", "r1")
    assert [artifact["name"] for artifact in about["artifacts"]] == ["weights__final.json"]
    assert about["flags"] == []
    assert len(outcome_of(home)["r1"][3]) == 7
    assert "resumed from 0" in log_of(home, "r1")
    assert "ftd-metric val/total" in log_of(home, "r1")
    assert not list(home.root.glob("runs/*/attempts/*/workspace"))
    summary = home.json("summary", "legacy")
    assert "param.lr" in json.dumps(summary)


def test_a_program_is_told_everything(tmp_path: Path) -> None:
    """What placeholders and variables say is so, wherever they stand; nothing else leaks in."""
    script = tmp_path / "tell.py"
    script.write_text(
        "import json, os, sys\n"
        "print('told', json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]))\n"
        "print('ftd-metric val/x 1 1')\nprint('ftd-metric val/y 2 1')\n"
    )
    (tmp_path / "here").mkdir()
    told = {
        "experiment": "told",
        "job": "command",
        "script": str(script),
        "args": ["{device}", "{threads}", "{seed}", "{seed.order}", "{param.flag}", "{{seed}}"],
        "param": {"flag": True, "name": "me"},
        "env": {"WHO": "{param.name}: {artifact_dir}"},
        "workdir": str(tmp_path / "here"),
        "metric": "val/y",
        "threads": 2,
    }
    home = LiveHome(tmp_path / "home")
    home.enqueue(json.dumps(told))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOMEBODYS_TOKEN", "secret")
        assert home.finish() == 0, home.log()
    (line,) = re.findall(r"^told (.*)$", log_of(home, "r1"), re.M)
    arguments, folder, variables = json.loads(line)
    seeds = home.json("show", "r1")["provenance"]["seeds"]
    init, order = (str(seeds[name] % (1 << 31)) for name in ("init", "order"))
    assert arguments == ["cpu", "2", init, order, "true", "{seed}"]
    assert folder == str(tmp_path / "here")
    artifacts = variables["FTD_ARTIFACT_DIR"]
    assert variables["WHO"] == f"me: {artifacts}" and str(home.root) in artifacts
    assert (variables["FTD_SEED"], variables["FTD_DEVICE"]) == (init, "cpu")
    assert variables["OMP_NUM_THREADS"] == "2" and variables["CUDA_VISIBLE_DEVICES"] == ""
    assert "SOMEBODYS_TOKEN" not in variables
    assert home.json("summary", "told")["metric"] == "val/y"


def facts(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """An outcome, metric rows in the order of their steps."""
    return {run: (*rest, sorted(rows)) for run, (*rest, rows) in found.items()}


def test_a_stopped_script_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    """Held and released, then its worker killed: it ends as one that was left alone, and says so.

    What an attempt left is never written to by a later one, and no program outlives its worker.
    """
    alone = LiveHome(tmp_path / "alone")
    alone.enqueue(spec(tmp_path, steps=30))
    assert alone.finish() == 0
    home = LiveHome(tmp_path / "home")
    home.enqueue(spec(tmp_path, steps=30, waits="11 20"))
    with serving(home):
        home.until_step(11)
        home.ftd("hold", "r1")
        home.until_states("held")
        first = home.root / "runs/r1/attempts/1/workspace/checkpoint_dir/state.json"
        left = first.read_text()
        assert json.loads(left)[0] == 11 and "left at 11\n" in log_of(home, "r1")  # it had time to
        home.ftd("release", "r1")
        second = home.root / "runs/r1/attempts/2/log.txt"
        home.until(lambda: second.exists() and " 20\n" in second.read_text(), "step 20 once more")
        (pid,) = pids_in(second.read_text())
        home.kill_workers()
        home.until(lambda: identity_of(pid) is None, "the program is gone")
        home.until(lambda: (home.root / "runs/r1/attempts/3/log.txt").exists(), "attempt 3")
        assert first.read_text() == left
        home.until_states("done")
    assert facts(outcome_of(home)) == facts(outcome_of(alone))
    assert home.json("show", "r1")["flags"] == ["own_resume"]
    assert "resumed from 11\n" in log_of(home, "r1", 2)
    assert "resumed from 20\n" in log_of(home, "r1", 3)


def test_an_exit_status_is_an_outcome(tmp_path: Path) -> None:
    """A program that fails is tried again as ftd.toml says, and its last words are told."""
    home = LiveHome(tmp_path / "home", failed=1)
    home.enqueue(program("echo almost; echo no luck; exit 3"))
    home.enqueue(program("kill -SEGV $$").replace("line", "signal"))
    home.enqueue(program("true").replace("line", "absent").replace("[sh,", "[no-such-program,"))
    assert home.finish() == 1
    errors = [run["error"] for run in home.runs()]
    assert "ended with status 3" in errors[0] and "almost | no luck" in errors[0]
    assert "SIGSEGV" in errors[1]
    assert "cannot start no-such-program" in errors[2]
    assert [run["attempts"] for run in home.json("runs")] == [2, 2, 1]


def test_a_time_limit_ends_a_program_that_does_not_listen(tmp_path: Path) -> None:
    """SIGTERM to its whole group, grace, SIGKILL: nothing of it is left."""
    home = LiveHome(tmp_path / "home", grace_s=10)
    deaf = "trap '' TERM; sleep 1000 & echo pids $$ $!; while true; do sleep 0.1; done"
    home.enqueue(program(deaf, "limits: {time_s: 1}\ngrace_s: 0.2\n"))
    assert home.finish() == 1
    run = home.runs()[0]
    assert run["state"] == "failed"
    assert home.json("show", "r1")["attempts"][0]["outcome"] == "timed_out"
    assert "stopped: time_limit" in log_of(home, "r1")  # before the daemon lost its patience
    assert [identity_of(pid) for pid in pids_in(log_of(home, "r1"))] == [None, None]


def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    """A child in the background neither keeps the run from ending nor lives on."""
    home = LiveHome(tmp_path / "home")
    home.enqueue(program("sleep 1000 & echo pid $!; echo ftd-metric test/x 1 1"))
    assert home.finish() == 0
    assert [identity_of(pid) for pid in pids_in(log_of(home, "r1"))] == [None]


def test_odd_metric_lines_do_not_fail_a_run(tmp_path: Path) -> None:
    """What is not understood is noted, what is not finite is noted and flagged."""
    home = LiveHome(tmp_path / "home")
    text = "echo ftd-metric top1 1 1; echo ftd-metric test/x nan 3; echo ftd-metric test/x 2 4"
    home.enqueue(program(text))
    assert home.finish() == 0
    about = home.json("show", "r1")
    assert about["flags"] == ["diverged"]
    assert home.runs()[0]["metrics"] == {"test/x": 2.0}
    told = json.dumps(about)
    assert "metric line not understood" in told and "does not name its split" in told


def test_a_changed_script_is_refused(tmp_path: Path) -> None:
    """What runs is what was asked for: another content is another question."""
    home = LiveHome(tmp_path / "home")
    text = spec(tmp_path)
    home.enqueue(text)
    (tmp_path / "train.py").write_text(TRAIN + "\n")
    assert home.finish() == 1
    assert "changed since the run was planned" in home.runs()[0]["error"]
    done = home.ftd("enqueue", "-", "--json", stdin=text)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "give command or script"),
        ({"command": ["a"], "script": "b"}, "give command or script"),
        ({"command": ["a"], "args": ["b"]}, "args belong to script"),
        ({"command": ["a", "{param.lr}"]}, "no placeholder {param.lr}"),
        ({"command": ["a", "{sed}"]}, "Did you mean 'seed'"),
        ({"command": ["a"], "env": {"X": "{nope}"}}, "no placeholder {nope}"),
        ({"command": ["a"], "param": {"lr": 1}}, "param.lr has no effect"),
        ({"command": ["a", "{{param.lr}}"], "param": {"lr": 1}}, "param.lr has no effect"),
        ({"command": ["./a"]}, "there is no file"),
        ({"script": "a.py"}, "there is no file"),
        ({"command": ["a"], "workdir": "b"}, "there is no folder"),
        ({"command": ["a"], "reads": ["b"]}, "there is no file or folder"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_planned(
    tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    """Before anything is enqueued, with what to do."""
    job = Command()
    with pytest.raises(InputError) as caught:
        job.resolve(job.Params.model_validate(params), tmp_path)
    assert said in str(caught.value)


def test_what_is_read_counts_by_content_and_commands_by_their_words(tmp_path: Path) -> None:
    """Inputs are the program's file and whatever it reads; names and grace are no question."""
    (tmp_path / "run.sh").write_text("true")
    (tmp_path / "data").mkdir()
    job = Command()
    raw: dict[str, Any] = {"command": ["./run.sh", "x"], "reads": ["data", "run.sh"], "grace_s": 1}
    params = job.resolve(job.Params.model_validate(raw), tmp_path)
    found = {name: (item.kind, Path(item.where).name) for name, item in job.inputs(params).items()}
    assert found == {
        "program": ("file", "run.sh"),
        "reads.0": ("folder", "data"),
        "reads.1": ("file", "run.sh"),
    }
    assert not {"grace_s", "metric", "reads", "script"} & set(job.identity(params))


@given(st.lists(st.sampled_from(["{a}", "{{a}}", "{", "}", '{"a": 1}', "x", "{b.c}", " "])))
def test_only_names_in_braces_are_placeholders(parts: list[str]) -> None:
    """Every other text, JSON included, stays as it is written."""
    values = {"a": "{b.c}", "b.c": "7"}
    meant = {"{a}": "{b.c}", "{{a}}": "{a}", "{b.c}": "7"}
    text = "|".join(parts)  # keeps braces of neighbours apart
    assert placeholders.filled(text, values) == "|".join(meant.get(part, part) for part in parts)


@given(
    st.text(string.ascii_letters + string.digits + "._-", min_size=1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, (1 << 63) - 1),
)
def test_a_metric_line_means_what_it_says(name: str, value: float, step: int) -> None:
    """In both spellings, numbers to the last bit."""
    row = Row(f"val/{name}", value, step)
    assert row_in(f"ftd-metric {row.name} {value!r} {step}\n") == row
    assert row_in(json.dumps({"step": step, "metric": row.name, "value": value, "x": [1]})) == row


@pytest.mark.parametrize("line", ["", "loss 0.3", "{not json", '{"loss": 1}', '["metric"]', "{}"])
def test_other_lines_are_no_metrics(line: str) -> None:
    """Programs print all kinds of things."""
    assert row_in(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "ftd-metric val/x 1", "ftd-metric val/x one 1", "ftd-metric x 1 1", "ftd-metric val/x 1 -1",
        '{"metric": "val/x", "value": true, "step": 1}', '{"metric": "val/x", "value": 1}',
    ],
)  # fmt: skip
def test_a_metric_line_that_says_too_little_is_an_error(line: str) -> None:
    """It is told, so that nobody waits for numbers that never come."""
    with pytest.raises(ValueError):
        row_in(line)
