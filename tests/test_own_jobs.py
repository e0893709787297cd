"""Jobs that are not built in: planned by a process of their own, executed as they were planned."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ftd.cli.main import main
from ftd.errors import SpecError
from ftd.files import read_json, seal_json
from ftd.planning.plan import Plan, make_plan
from ftd.protocol import ORDER, RESULT
from ftd.source import INTERPRETER, SOURCE, interpreter_input
from ftd.spec.experiment import parse
from tests.homes import LiveHome
from tests.interpreters import install, make_interpreter
from tests.orders import order

COUNT = '''
import os
from pathlib import Path
from ftd.job import Completed, Input, Job, Params
from ftd.errors import InputError

class CountParams(Params):
    """What is counted."""
    to: int = 3
    by: float = 1.0
    file: str | None = None

class Count(Job[CountParams]):
    """Counts."""
    Params = CountParams
    def resolve(self, params, base):
        """A file beside the spec."""
        if params.to == 13:
            raise InputError("13 brings bad luck", where="to", fix="Take 12")
        if params.file is None:
            return params
        return params.model_copy(update={"file": str(base / params.file)})
    def identity(self, params):
        """What is in the file counts, not where it is."""
        return params.model_dump(mode="json", exclude={"file"})
    def inputs(self, params):
        """The file."""
        return {} if params.file is None else {"file": Input("file", params.file)}
    def primary_metric(self, params):
        """The count."""
        return "test/count"
    def run(self, params, context):
        """Counts."""
        context.metric("test/count", params.to * params.by, params.to)
        return Completed({"test/count": params.to * params.by}, "0" * 64, params.to)
'''
SPEC = "experiment: count\njob: ./count.py:Count\n"


def planned(folder: Path, spec: str = SPEC) -> Plan:
    """The plan of a spec in `folder`."""
    return make_plan(parse(spec, "spec.yaml"), folder, device_kind="cpu")


def refused(folder: Path, spec: str = SPEC) -> str:
    """What is said of a spec that cannot be planned."""
    with pytest.raises(SpecError) as caught:
        planned(folder, spec)
    return str(caught.value)


def job_file(folder: Path, text: str = COUNT) -> Path:
    """The job's file in `folder`."""
    path = folder / "count.py"
    path.write_text(text)
    return path


def test_one_process_plans_all_cells_and_it_is_not_ours(tmp_path: Path) -> None:
    """A job's file is imported once for a thousand cells, by another process."""
    seen = tmp_path / "imported-by"
    note = f"with open({str(seen)!r}, 'a') as log: print(os.getpid(), file=log)"
    job_file(tmp_path, f"{COUNT}\n{note}")
    levels = ", ".join(map(str, range(20, 1020)))
    plan = planned(tmp_path, f"{SPEC}factors: {{to: [{levels}]}}")
    assert len(plan.runs) == 1000
    assert plan.primary_metric == "test/count"
    imported_by = seen.read_text().split()
    assert len(imported_by) == 1 and imported_by[0] != str(os.getpid())


def test_the_key_is_made_of_the_code_and_of_what_counts(tmp_path: Path) -> None:
    """Other code is another run; the same code elsewhere, and what cannot matter, are not."""
    folders = [tmp_path / name for name in ("one", "copy", "edited")]
    for folder in folders:
        folder.mkdir()
        (folder / "data.txt").write_text("data")
        job_file(folder, COUNT + ("\n# edited" if folder.name == "edited" else ""))
    spec = SPEC + "file: data.txt\n"
    one, copy, edited = (planned(folder, spec).runs[0] for folder in folders)
    assert one.key == copy.key != edited.key
    assert one.job == "count.py:Count"
    assert one.params == {"to": 3, "by": 1.0, "file": str(tmp_path / "one" / "data.txt")}
    assert set(one.inputs) == {"file", SOURCE}
    (folders[1] / "data.txt").write_text("other")
    assert planned(folders[1], spec).runs[0].key != one.key


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ("fil: a", ["spec.yaml:3", "unknown key 'fil'", "'file'"]),
        ("to: many", ["spec.yaml:3", "a valid integer", "many"]),
        ("to: 13", ["spec.yaml:3", "bad luck", "Take 12"]),
        ("file: away.txt", ["spec.yaml:3", "away.txt"]),
        ("factors: {to: [1, x]}", ["spec.yaml:3", "factors.to"]),
        ("factors: {fil: [1, 2]}", ["spec.yaml:3", "no parameter", "'file'"]),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_line(
    tmp_path: Path, addition: str, said: list[str]
) -> None:
    """What the job's process refuses is told with file, line and key, as for built-in jobs."""
    job_file(tmp_path)
    text = refused(tmp_path, SPEC + addition)
    assert all(part in text for part in said), text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:", ["count.py:1", "SyntaxError"]),
        ("\n1 / 0", ["count.py:2", "ZeroDivisionError"]),
        ("import count_helpers", ["count.py:1", "count_helpers", "python:"]),
        ("Count = 1", ["'Count' is no job", "ftd.job.Job"]),
        (COUNT.replace("class Count(", "class Counts("), ["no 'Count'", "Did you mean 'Counts'"]),
        (COUNT.replace("    Params = CountParams\n", ""), ["has no Params"]),
        (COUNT.replace("def run", "def go"), ["'Count' is no job"]),
        (f"import sys; sys.modules['torch'] = sys\n{COUNT}", ["imports torch", "into run()"]),
        ("raise SystemExit(4)", ["ended its process", "status 4"]),
        ("import os; os.write(2, b'bye\\n'); os._exit(3)", ["status 3", "bye"]),
        (COUNT.replace("return {} if", "return {'python': Input('file', 'x')} if"), ["'python'"]),
        (
            COUNT.replace("to: int = 3", "to: object = 3").replace(
                'return params.model_dump(mode="json", exclude={"file"})', "return {'x': object()}"
            ),
            ["TypeError"],
        ),
    ],
)
def test_code_that_is_no_job_is_refused(tmp_path: Path, code: str, said: list[str]) -> None:
    """Whatever is wrong with somebody's code is one error that says what and where."""
    job_file(tmp_path, code)
    text = refused(tmp_path)
    assert all(part in text for part in said), text


def test_what_a_job_prints_does_not_disturb_planning(tmp_path: Path) -> None:
    """Standard output belongs to the conversation, not to the job."""
    job_file(tmp_path, "print('hello')\n" + COUNT.replace('"""A file', 'print("{"); """A file'))
    assert len(planned(tmp_path).runs) == 1


def test_the_file_that_was_enqueued_is_executed(tmp_path: Path) -> None:
    """Edits and the loss of the file after enqueueing change nothing; a dry run keeps none."""
    home = LiveHome(tmp_path / "home")
    path = job_file(tmp_path)
    spec = SPEC.replace("./count.py", str(path))
    assert home.ftd("enqueue", "-", "--dry-run", stdin=spec).returncode == 0
    assert not home.home.sources.exists()
    home.enqueue(spec)
    job_file(tmp_path, COUNT.replace("params.to * params.by", "-1.0"))
    home.enqueue(spec.replace("experiment: count", "experiment: edited"))
    path.unlink()
    assert home.finish() == 0, home.log()
    assert [run["metrics"]["test/count"] for run in home.runs()] == [3.0, -1.0]


def test_kept_code_that_was_altered_is_not_executed(tmp_path: Path) -> None:
    """A worker verifies what it executes; other bytes are refused, and missing ones waited for."""
    home = LiveHome(tmp_path / "home")
    home.enqueue(SPEC.replace("./count.py", str(job_file(tmp_path))))
    kept = next(home.home.sources.iterdir())
    kept.write_text(COUNT.replace("params.to * params.by", "-1.0"))
    assert home.finish() == 1
    assert home.states() == ["failed"]
    assert "is not the code" in home.runs()[0]["error"]


def test_another_interpreter_executes_the_runs_if_it_is_allowed(tmp_path: Path) -> None:
    """`python:` needs ftd.toml's word, nothing but ftd and pydantic there, and is in the key."""
    python = make_interpreter(tmp_path / "venv")
    install(
        tmp_path / "venv",
        "lab",
        {
            "lab/__init__.py": "",
            "lab/counting.py": COUNT.replace(
                "params.to * params.by", "float('torch' not in __import__('sys').modules)"
            ),
        },
        "[ftd.jobs]\nlab-count = lab.counting:Count\n",
    )
    home = LiveHome(tmp_path / "home", failed=0)
    spec = f"experiment: own\njob: lab-count\npython: {python}\n"
    told = home.ftd("enqueue", "-", stdin=spec)
    assert told.returncode == 2 and "not allowed" in told.stderr and ":3: python" in told.stderr
    with (tmp_path / "home" / "ftd.toml").open("a") as config:
        config.write(f'[jobs]\ninterpreters = ["{python}"]\n')
    home.enqueue(spec)
    file = f"{job_file(tmp_path)}:Count"
    home.enqueue(spec.replace("own", "own-file").replace("lab-count", file))
    home.enqueue(f"experiment: ours\njob: {file}\n")
    module = spec.replace("own", "own-module").replace("lab-count", "lab.counting:Count")
    home.enqueue(module)
    assert home.finish() == 0, home.log()
    assert [run["metrics"]["test/count"] for run in home.runs()] == [1.0, 3.0, 3.0, 1.0]
    provenance = home.json("show", "r1")["provenance"]
    assert provenance["inputs"][INTERPRETER]["where"] == str(python)
    assert provenance["versions"]["torch"] is None

    install(tmp_path / "venv", "lab", {"lab/helper.py": "# new"})
    home.enqueue(module)  # other code: another run
    install(tmp_path / "venv", "lab", {"lab/helper.py": "# newer"})
    assert home.finish() == 1
    assert len(home.runs()) == 5
    assert "changed since the run was planned" in home.runs()[4]["error"]


def test_an_interpreter_without_ftd_is_refused_with_what_to_install(tmp_path: Path) -> None:
    """The message names the interpreter and the command."""
    job_file(tmp_path)
    python = make_interpreter(tmp_path / "venv", knows_ftd=False)
    text = refused(tmp_path, f"{SPEC}python: {python}\n")
    assert "cannot import ftd" in text and f"{python} -m pip install" in text
    assert "cannot start" in refused(tmp_path, f"{SPEC}python: /nonexistent/python\n")


def test_a_run_whose_interpreter_is_no_longer_allowed_is_refused(tmp_path: Path) -> None:
    """The daemon decides what it starts, whatever the ledger says."""
    python = make_interpreter(tmp_path / "venv")
    home = LiveHome(tmp_path / "home")
    config = tmp_path / "home" / "ftd.toml"
    before = config.read_text()
    config.write_text(f'{before}[jobs]\ninterpreters = ["{python}"]\n')
    home.enqueue(f"experiment: own\njob: {job_file(tmp_path)}:Count\npython: {python}\n")
    config.write_text(before)
    assert home.finish() == 1 or home.states() == ["failed"]
    assert "not allowed" in home.runs()[0]["error"]


def test_the_worker_side_needs_the_standard_library_and_pydantic_only(tmp_path: Path) -> None:
    """So that an interpreter of one's own needs no more installed for it."""
    python = make_interpreter(tmp_path / "venv")
    script = "import ftd.worker.main, ftd.worker.describe, ftd.worker.trial, ftd.job"
    done = subprocess.run([python, "-P", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sys.executable != str(python)


@pytest.mark.parametrize("version", [platform.python_version(), "3.1.4"])
def test_another_version_of_the_interpreter_is_refused(tmp_path: Path, version: str) -> None:
    """An environment that was upgraded since asks another question."""
    directory = tmp_path / "attempts" / "1"
    directory.mkdir(parents=True)
    planned = order(inputs={INTERPRETER: interpreter_input("/lab/python", version)})
    seal_json(directory / ORDER, planned.as_json())
    subprocess.run([sys.executable, "-P", "-m", "ftd.worker", str(directory)], check=True)
    result = read_json(directory / RESULT) or {}
    same = version == platform.python_version()
    assert result["outcome"] == ("completed" if same else "refused")
    assert same or "planned for /lab/python 3.1.4, which is now Python 3." in result["error"]


def test_the_schema_knows_the_job_s_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an editor: a path starts at the current folder."""
    job_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "./count.py:Count"]) == 0
    properties = json.loads(capsys.readouterr().out)["properties"]
    assert properties["to"]["type"] == "integer" and "replicates" in properties


def test_the_example_is_planned() -> None:
    """examples/own-job/soup.yaml names its job beside it."""
    spec = Path(__file__).parent.parent / "examples" / "own-job" / "soup.yaml"
    plan = make_plan(parse(spec.read_text(), "soup.yaml"), spec.parent, device_kind="cpu")
    assert len(plan.runs) == 8 and plan.primary_metric == "test/error"
