"""The command line in process: verbs, options, exit codes, and the contract for scripts."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftd import __version__, config
from ftd.cli.init import default_settings
from ftd.cli.main import VERBS, main
from ftd.layout import Home
from ftd.ledger import reads
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.execution import record
from ftd.protocol import LOG
from ftd.states import RunState
from tests.finished import begin, complete, fail

SPEC = """\
experiment: rehearsal
job: drill
steps: 3
factors:
  score: [0.5, 0.7]
replicates: 2
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home that commands use; it does not exist yet."""
    root = tmp_path / "home"
    monkeypatch.setenv("FTD_HOME", str(root))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return Home(root)


@pytest.fixture
def ledger(home: Home) -> Iterator[Ledger]:
    """The home's ledger, with the spec enqueued: runs r1 to r4."""
    assert main(["enqueue", "spec.yaml"]) == 0
    opened = open_ledger(home)
    yield opened
    opened.close()


def printed(capsys: Capture, *arguments: str, status: int = 0) -> str:
    """What a command prints on standard output."""
    capsys.readouterr()
    assert main(arguments) == status
    return capsys.readouterr().out


def parsed(capsys: Capture, *arguments: str) -> Any:
    """The JSON value that a command prints."""
    return json.loads(printed(capsys, *arguments, "--json"))


def refused(capsys: Capture, *arguments: str, status: int = 2) -> str:
    """What a command that must fail says, on standard error alone."""
    capsys.readouterr()
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


# --- the frame


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: Capture) -> None:
    """--help of every verb shows an example that begins with that verb."""
    text = printed(capsys, verb, "--help")
    assert "example:" in text
    assert f"ftd {verb}" in text.split("example:")[1]


READING = sorted(
    {
        "status",
        "runs",
        "show",
        "summary",
        "changes",
        "advise",
        "distances",
        "export",
        "layers",
        "schema",
        "doctor",
        "enqueue",
        "fsck",
        "predict",
        "check-job",
        "service",
    }
)


@pytest.mark.parametrize("verb", READING)
def test_every_reading_verb_speaks_json(verb: str, capsys: Capture) -> None:
    """--json is an option of everything that shows something."""
    assert "--json" in printed(capsys, verb, "--help")


def test_help_lists_every_verb(capsys: Capture) -> None:
    """ftd --help, and ftd alone, name each verb with its one line."""
    text = printed(capsys, "--help")
    assert all(f"  {verb} " in text and line in text for verb, (_, line) in VERBS.items())
    assert printed(capsys) == text


@pytest.mark.parametrize("arguments", [["--version"], ["runs", "--version"]])
def test_version(arguments: list[str], capsys: Capture) -> None:
    """--version works before and after the verb."""
    assert printed(capsys, *arguments) == f"ftd {__version__}\n"


@pytest.mark.parametrize("before", [True, False])
def test_home_before_and_after_the_verb(
    before: bool, home: Home, tmp_path: Path, capsys: Capture
) -> None:
    """--home means the same in both places, and counts more than $FTD_HOME."""
    other = ["--home", str(tmp_path / "other")]
    arguments = [*other, "init"] if before else ["init", *other]
    printed(capsys, *arguments)
    assert (tmp_path / "other" / "ledger.sqlite").exists()
    assert not home.root.exists()


@pytest.mark.parametrize(
    "arguments", [["runz"], ["runs", "--stat", "done"], ["enqueue"], ["prioritise", "r1", "high"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], home: Home, capsys: Capture) -> None:
    """Unknown verbs, abbreviated or missing options are the user's errors."""
    assert "usage: ftd" in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "command",
    [
        "status", "runs", "wait", "show e1", "summary e1", "export e1", "logs r1", "cancel r1",
        "hold r1", "release r1", "retry r1", "prioritise r1 5", "fsck", "fsck --repair",
        "service checkpoint",
    ],
)  # fmt: skip
def test_without_a_home_one_line_says_what_to_do(command: str, home: Home, capsys: Capture) -> None:
    """Whoever asks about a home that is not there learns how one is made; nothing is made."""
    said = refused(capsys, *command.split(), status=1)
    assert "ftd init" in said and said.count("\n") == 1
    assert not home.root.exists()


def test_an_unusable_home_is_one_line(capsys: Capture) -> None:
    """A home that cannot be made is no traceback."""
    said = refused(capsys, "--home", "/proc/nowhere", "init", status=1)
    assert "cannot make a home at /proc/nowhere" in said


# --- enqueue


def test_enqueue_answers_as_promised(home: Home, capsys: Capture) -> None:
    """{experiment, id, runs, new, shared}; the same again shares everything."""
    first = parsed(capsys, "enqueue", "spec.yaml")
    assert first["experiment"] == "rehearsal" and first["id"] == "e1"
    assert first["runs"] == ["r1", "r2", "r3", "r4"]
    assert (first["new"], first["shared"]) == (4, 0)
    again = parsed(capsys, "enqueue", "spec.yaml")
    assert again["id"] == "e1" and again["runs"] == first["runs"]
    assert (again["new"], again["shared"]) == (0, 4)


def test_enqueue_tells_people_what_comes_next(home: Home, capsys: Capture) -> None:
    """Without a daemon, the next thing to type is ftd daemon."""
    text = printed(capsys, "enqueue", "spec.yaml")
    assert "e1 rehearsal: 4 runs, 4 new: r1-r4" in text
    assert "ftd daemon" in text


def test_options_reach_the_plan(home: Home, capsys: Capture) -> None:
    """--set, --priority and --fresh do what they say."""
    assert len(parsed(capsys, "enqueue", "spec.yaml", "--set", "replicates=1")["runs"]) == 2
    fresh = parsed(capsys, "enqueue", "spec.yaml", "--fresh", "--priority", "7")
    assert fresh["new"] == 4
    queue = parsed(capsys, "status")["queued"]
    assert [row["priority"] for row in queue] == [7, 7, 7, 7, 0, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "replicates"], "PATH=VALUE"),
        (["--set", "seed=1", "--set", "seed=2"], "twice"),
        (["--set", "stepz=2"], "stepz"),
    ],
)
def test_bad_overrides_enqueue_nothing(
    options: list[str], said: str, home: Home, capsys: Capture
) -> None:
    """A wrong --set is exit 2, and not even a home is made."""
    assert said in refused(capsys, "enqueue", "spec.yaml", *options)
    assert not home.root.exists()


def test_a_spec_that_cannot_be_read(home: Home, tmp_path: Path, capsys: Capture) -> None:
    """A missing file and one that is no text are named."""
    assert "nope.yaml" in refused(capsys, "enqueue", "nope.yaml")
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\x00")
    assert "raw.yaml: not UTF-8 text" in refused(capsys, "enqueue", "raw.yaml")


def test_a_dry_run_touches_nothing(home: Home, capsys: Capture) -> None:
    """Cells, runs and what would happen are shown; no home appears."""
    text = printed(capsys, "enqueue", "spec.yaml", "--dry-run")
    assert "2 cells x 2 replicates = 4 distinct runs: 4 new, 0 known" in text
    assert "nothing was written" in text
    assert not home.root.exists()


def test_a_dry_run_knows_what_is_known(ledger: Ledger, capsys: Capture) -> None:
    """Known runs appear with id, state and what would become of them; the ledger stays as it is."""
    complete(ledger, 1, {"test/score": 0.5})
    fail(ledger, 2, "no")
    found = parsed(capsys, "enqueue", "spec.yaml", "--dry-run")
    assert (found["new"], found["shared"], found["done"], found["requeued"]) == (0, 4, 1, 1)
    (first, second) = found["cells"][0]["runs"]
    assert (first["id"], first["state"], first["action"]) == ("r1", "done", "kept")
    assert (second["id"], second["state"], second["action"]) == ("r2", "failed", "queued again")
    assert parsed(capsys, "runs")[1]["state"] == "failed"


# --- reading


def test_runs_keep_their_contract(ledger: Ledger, capsys: Capture) -> None:
    """Each run has the promised fields, final metrics and digest once it is done."""
    complete(ledger, 1, {"test/score": 0.5})
    rows = parsed(capsys, "runs", "rehearsal")
    assert [row["id"] for row in rows] == ["r1", "r2", "r3", "r4"]
    done, waiting = rows[0], rows[1]
    assert done["experiments"] == ["rehearsal"] and done["job"] == "drill"
    assert done["state"] == "done" and done["metrics"] == {"test/score": 0.5}
    assert done["factors"] == {"score": 0.5} and done["replicate"] == 0
    assert done["attempts"] == 1 and len(done["state_sha256"]) == 64
    assert waiting["state_sha256"] is None and waiting["metrics"] == {}


def test_runs_by_state(ledger: Ledger, capsys: Capture) -> None:
    """--state may be given several times."""
    complete(ledger, 1, {"test/score": 0.5})
    fail(ledger, 2, "no")
    assert [row["id"] for row in parsed(capsys, "runs", "--state", "done")] == ["r1"]
    both = parsed(capsys, "runs", "e1", "--state", "done", "--state", "failed")
    assert [row["id"] for row in both] == ["r1", "r2"]
    assert "no such runs" in printed(capsys, "runs", "--state", "held")


def test_status_keeps_its_contract(ledger: Ledger, capsys: Capture) -> None:
    """The promised keys; running and waiting runs, counts of every state."""
    begin(ledger, 1, "cpu:1")
    complete(ledger, 2, {"test/score": 0.5})
    found = parsed(capsys, "status")
    assert found["daemon"] is None
    assert set(found) >= {"daemon", "devices", "running", "queued", "counts"}
    assert [row["id"] for row in found["running"]] == ["r1"]
    assert [row["id"] for row in found["queued"]] == ["r3", "r4"]
    assert all("daemon" in row["reason"] for row in found["queued"])
    assert found["counts"] == {
        "queued": 2, "running": 1, "held": 0, "done": 1, "failed": 0, "cancelled": 0
    }  # fmt: skip
    assert found["experiments"][0]["counts"] == {"queued": 2, "running": 1, "done": 1}
    assert [row["id"] for row in found["recent"]] == ["r2"]


def test_status_shows_the_primary_metric_first(ledger: Ledger, capsys: Capture) -> None:
    """Of many metrics, the one that the experiment is about leads; others on test images follow."""
    others = {f"test/{name}": 0.25 for name in "abcd"}
    complete(ledger, 1, {"val/score": 0.1, **others, "test/score": 0.5})
    shown = "test/score 0.5000, test/a 0.2500, test/b 0.2500\n"
    assert shown in printed(capsys, "status") and shown in printed(capsys, "runs")


def test_status_shows_what_blocks_a_run(ledger: Ledger, capsys: Capture) -> None:
    """The newest trouble of the attempt that lives, not of an earlier one, and not for ever."""
    fail(ledger, 1, "no", RunState.QUEUED)
    record(ledger, "blocked", run=1, attempt=1, data={"why": "long ago"})
    begin(ledger, 1, "cpu:1")
    begin(ledger, 2, "cpu:0")
    assert [row["trouble"] for row in parsed(capsys, "status")["running"]] == [None, None]
    record(ledger, "blocked", run=1, attempt=2, data={"why": "process 7 holds the lock"})
    record(ledger, "blocked", run=1, attempt=2, data={"why": "process 8 holds the lock"})
    troubles = {row["id"]: row["trouble"] for row in parsed(capsys, "status")["running"]}
    assert troubles == {"r1": "process 8 holds the lock", "r2": None}
    assert "process 8 holds the lock" in printed(capsys, "status")


def test_status_cuts_a_long_queue_and_says_so(ledger: Ledger, capsys: Capture) -> None:
    """Beyond --limit, the number of runs left out is said."""
    text = printed(capsys, "status", "--limit", "1")
    assert "r1 " in text and "r2 " not in text
    assert "... and 3 more" in text


def test_experiments_too_large_to_count_at_a_glance(ledger: Ledger) -> None:
    """Beyond a limit of places, the newest experiments are counted and older ones are not."""
    assert main(["enqueue", "spec.yaml", "--set", "replicates=1"]) == 0  # 2 places, e1 has 4
    newest, oldest = reads.experiments(ledger, count_up_to=5)
    assert (newest.num_places, newest.counts) == (2, {"queued": 2})
    assert (oldest.num_places, oldest.counts) == (4, None)
    assert reads.experiments(ledger)[1].counts == {"queued": 4}


def test_show_a_run(ledger: Ledger, capsys: Capture) -> None:
    """Parameters, provenance, attempts, memberships and history, in JSON and as text."""
    fail(ledger, 1, "out of patience", RunState.QUEUED)
    complete(ledger, 1, {"test/score": 0.5}, "diverged")
    found = parsed(capsys, "show", "r1")
    assert found["params"]["steps"] == 3
    assert found["provenance"]["key"] and found["provenance"]["seeds"]["order"]
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["failed", "completed"]
    assert {"resumed_from_step", "worker", "started_at", "ended_at"} <= set(found["attempts"][0])
    assert found["artifacts"] == [] and found["memberships"][0]["id"] == "e1"
    text = printed(capsys, "show", "1")
    assert "out of patience" in text and "diverged" in text and "attempt started 2" in text


def test_show_an_experiment(ledger: Ledger, capsys: Capture) -> None:
    """Its spec as it was written, its runs, its revisions."""
    found = parsed(capsys, "show", "e1")
    assert found["spec"] == SPEC and found["runs"] == ["r1", "r2", "r3", "r4"]
    printed(capsys, "enqueue", "spec.yaml", "--set", "seed=9")
    newest = parsed(capsys, "show", "rehearsal")
    assert (newest["id"], newest["revision"], newest["revisions"]) == ("e2", 2, ["e1", "e2"])
    assert "  score: [0.5, 0.7]" in printed(capsys, "show", "rehearsal")


@pytest.mark.parametrize("verb", ["show", "summary", "export", "wait", "cancel"])
def test_unknown_names_suggest_the_closest(verb: str, ledger: Ledger, capsys: Capture) -> None:
    """A misspelled experiment is exit 2 and names the one that was meant."""
    assert "no experiment rehersal. Did you mean 'rehearsal'?" in refused(capsys, verb, "rehersal")


@pytest.mark.parametrize("name", ["e99999999999999999999", "r99999999999999999999"])
def test_an_id_beyond_all_numbers_is_an_unknown_name(
    name: str, ledger: Ledger, capsys: Capture
) -> None:
    """However many digits somebody types, the answer is one line."""
    assert f"no {'experiment' if name[0] == 'e' else 'run'} {name}" in refused(capsys, "show", name)


def test_logs_of_any_attempt(
    ledger: Ledger, home: Home, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The newest attempt's log by default, byte for byte; others on request."""
    fail(ledger, 1, "no", RunState.QUEUED)
    complete(ledger, 1, {"test/score": 0.5})
    for number in (1, 2):
        home.attempt(1, number).mkdir(parents=True)
        (home.attempt(1, number) / LOG).write_bytes(b"attempt %d \xff\n" % number)
    capsysbinary.readouterr()
    assert main(["logs", "r1"]) == 0
    assert main(["logs", "r1", "--attempt", "1"]) == 0
    assert main(["logs", "r1", "-f"]) == 0
    assert capsysbinary.readouterr().out == b"attempt 2 \xff\nattempt 1 \xff\nattempt 2 \xff\n"
    assert main(["logs", "r1", "--attempt", "3"]) == 2
    assert b"has no attempt 3" in capsysbinary.readouterr().err
    (home.attempt(1, 2) / LOG).write_bytes(b"")
    assert main(["logs", "r1"]) == 0
    printed = capsysbinary.readouterr()
    assert (printed.out, b"attempt 2 has printed nothing" in printed.err) == (b"", True)


# --- waiting and changing


def test_wait_ends_with_the_runs(ledger: Ledger, capsys: Capture) -> None:
    """0 when all are done; 1 when one failed, when time is over, when only held ones are left."""
    complete(ledger, 1, {"test/score": 0.5})
    complete(ledger, 2, {"test/score": 0.5})
    assert main(["wait", "r1", "r2"]) == 0
    assert main(["wait", "rehearsal", "--timeout_s", "0"]) == 1
    assert "2 queued" in capsys.readouterr().err
    fail(ledger, 3, "no")
    assert main(["wait", "r1", "r3"]) == 1
    assert main(["hold", "r4"]) == 0
    capsys.readouterr()
    assert main(["wait"]) == 1
    assert "ftd release" in capsys.readouterr().err


def test_changes_tell_where_runs_stand(ledger: Ledger, capsys: Capture) -> None:
    """cancel, retry, hold and release answer with the runs touched and their states."""
    assert "2 runs (r1-r2), now 2 cancelled" in printed(capsys, "cancel", "r1", "r2")
    found = parsed(capsys, "retry", "rehearsal", "--why", "again")
    assert found == {"runs": ["r1", "r2"], "states": {"r1": "queued", "r2": "queued"}}
    assert "4 held" in printed(capsys, "hold", "rehearsal", "--why", "visitors")
    assert "visitors" in parsed(capsys, "status")["queued"][0]["reason"]
    assert "4 queued" in printed(capsys, "release", "e1")
    assert "nothing changed" in printed(capsys, "release", "e1")
    assert parsed(capsys, "show", "r1")["memberships"][0]["wished_why"] == "release"


@pytest.mark.parametrize("verb", ["cancel", "hold"])
def test_a_change_that_comes_too_late_says_so(verb: str, ledger: Ledger, capsys: Capture) -> None:
    """Runs that have ended stay as they are, and are named as such."""
    complete(ledger, 1, {"test/score": 0.5})
    fail(ledger, 2, "no")
    told = printed(capsys, verb, "r1", "r2")
    assert told == f"{verb}: nothing changed, r1-r2 had ended before (1 done, 1 failed)\n"
    told = printed(capsys, verb, "rehearsal")
    assert "4 runs (r1-r4), now" in told and "1 done, 1 failed" in told
    assert told.endswith("; nothing changed for r1-r2, which had ended before\n")


def test_prioritise(ledger: Ledger, capsys: Capture) -> None:
    """The number comes last, also a negative one."""
    printed(capsys, "prioritise", "r3", "r4", "5")
    printed(capsys, "prioritise", "r4", "-5")
    queue = parsed(capsys, "status")["queued"]
    assert [(row["id"], row["priority"]) for row in queue] == [
        ("r3", 5), ("r1", 0), ("r2", 0), ("r4", -5)
    ]  # fmt: skip


# --- around the service


def test_layers(capsys: Capture) -> None:
    """Numbered layers, what a treatment does to them, and the networks there are."""
    found = parsed(capsys, "layers", "alexnet", "--treat", "F(1-last-1)R(last)")
    assert [layer["name"] for layer in found["layers"]][:2] == ["conv1", "conv2"]
    assert found["treatments"] == "F(1-7)R(8)" and found["layers"][7]["treatment"] == "R"
    assert "alexnet" in parsed(capsys, "layers")
    assert "conv5" in printed(capsys, "layers", "alexnet")
    assert "alexnet" in refused(capsys, "layers", "alexnett")
    assert parsed(capsys, "layers", "--list", "vgg1?") == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert parsed(capsys, "layers", "--list", "lite") == ["efficientnet_lite0"]
    assert "no network's name fits 'lite?'" in refused(capsys, "layers", "--list", "lite?")
    assert "Give one of them" in refused(capsys, "layers", "alexnet", "--list", "vgg")


def test_schema(capsys: Capture) -> None:
    """The schema of a job's specs is JSON and knows its parameters."""
    assert "steps" in parsed(capsys, "schema", "drill")["properties"]
    assert "drill" in refused(capsys, "schema", "dril")


def test_init_is_idempotent_and_private(home: Home, capsys: Capture) -> None:
    """A home for its owner alone, settings once; doing it again changes nothing."""
    printed(capsys, "init")
    assert stat.S_IMODE(os.stat(home.root).st_mode) == 0o700
    settings = home.root / "ftd.toml"
    settings.write_text("allow_downloads = true\n")
    assert "already" in printed(capsys, "init")
    assert settings.read_text() == "allow_downloads = true\n"
    assert config.load(home).allow_downloads


def test_the_settings_that_init_writes_are_the_defaults() -> None:
    """As written everything is a comment; uncommented it says what the defaults are."""
    text = default_settings()
    assert config.parse(text, "new ftd.toml") == config.Config()
    said = [line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# ", "["))]
    lines = [line for line in said if line.startswith("[") or (" = " in line and "..." not in line)]
    assert config.parse("\n".join(lines), "uncommented") == config.Config()
    assert sum(" = " in line for line in lines) > 15


def test_doctor_finds_what_is_wrong(home: Home, capsys: Capture) -> None:
    """A damaged ledger and unreadable settings fail, each with its fix; the rest still runs."""
    printed(capsys, "init")
    home.ledger.write_bytes(b"no database" * 500)
    (home.root / "ftd.toml").write_text("tick = 1\n")
    home.root.chmod(0o777)
    found = json.loads(printed(capsys, "doctor", "--json", status=1))
    failed = {one["check"]: one for one in found if one["level"] == "fail"}
    assert set(failed) == {"home", "settings", "ledger"}
    assert all(one["fix"] for one in failed.values())
    levels = {one["check"]: one["level"] for one in found}
    assert (levels["daemon"], levels["torch"], levels["jobs"]) == ("warn", "ok", "ok")
