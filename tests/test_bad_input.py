"""Whatever is put in, from any side: one line that names the place, nothing done, nobody stopped.

Specs, settings, weights and images have tests of what they mean elsewhere; here they are hostile.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ftd import config, files
from ftd.cli.main import VERBS, main
from ftd.daemon.evidence import Alive, Blocked, Over, examine
from ftd.daemon.presence import daemon_identity
from ftd.daemon.queue import Queue
from ftd.errors import ConfigError, DataError, FtdError, WeightsError
from ftd.inputs import fingerprint
from ftd.job import Input
from ftd.layout import Home
from ftd.ledger import execution, wishes
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.execution import Ending, LiveAttempt
from ftd.ledger.ingest import ingest
from ftd.ledger.models import Event, Experiment, Metric
from ftd.protocol import EVENTS, ORDER, RESULT, STOP, WORKER, Order, Result
from ftd.states import RunState
from ftd.worker import checkpoints
from ftd.worker.context import AttemptContext
from ftd.worker.main import main as worker
from jobs import sources
from jobs.data.folder import folder_listing
from jobs.data.images import UNREADABLE
from jobs.data.pixels import square
from jobs.models.weights import read
from tests.ledgers import enqueue, new_ledger, plan
from tests.orders import order

torch.set_num_threads(1)

SPEC = "experiment: x\njob: drill\nsteps: 1\n"
REAL_SPEC = (Path(__file__).parent.parent / "examples" / "solar-cells.yaml").read_bytes()
REAL_TOML = (Path(__file__).parent.parent / "ftd.toml").read_bytes()
HANG_S = 60  # what takes so long waits for ever
SHARED = settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# what terminals obey, what turns the direction of writing, what is no text
WILD = "\x1b[2J\x07\x00\x7f\x9b\u202e\u2066\u200b\ud800\udcff\n\r\t\u2028é日\U0001f9ea\"'{}[]:/~.%"
wild_text = st.text(st.sampled_from(WILD) | st.characters(), max_size=12)
numbers = st.sampled_from(
    [0, -1, 1, 3, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan")]
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | wild_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(wild_text, inner, max_size=3),
    max_leaves=6,
)
DEEP = b"[" * 100_000
UGLY_JSON = [DEEP, b'{"a":' * 50_000, b"", b"\xff\xfe", b"9" * 5000, b'"\\ud800"', b"null", b"{}"]


class Hang(BaseException):
    """Something waits that should not."""


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that waits for a fifo, or reads a device without end, fails instead."""

    def hung(*_: object) -> None:
        raise Hang

    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.signal(signal.SIGALRM, hung)
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)


ODD = ["fifo", "device", "folder", "loop", "enormous", "dangling"]


@pytest.fixture
def odd(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """What stands where a file is expected; parametrized by its kind."""
    place = tmp_path / "odd"
    match request.param:
        case "fifo":
            os.mkfifo(place)
        case "device":
            place.symlink_to("/dev/zero")
        case "folder":
            place.mkdir()
        case "loop":
            place.symlink_to(place)
        case "enormous":
            with place.open("wb") as stream:
                stream.truncate(1 << 42)  # takes no room
        case "dangling":
            place.symlink_to("nowhere")
        case "too long":
            place = tmp_path / ("x" * 5000)
    return place


everything_odd = pytest.mark.parametrize("odd", ODD, indirect=True)
everything_odd_or_long = pytest.mark.parametrize("odd", [*ODD, "too long"], indirect=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with one experiment, in an empty current folder."""
    made = Home(tmp_path / "home")
    ledger = open_ledger(made, create=True)
    enqueue(ledger, plan("x"))
    ledger.close()
    monkeypatch.setenv("FTD_HOME", str(made.root))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return made


def num_experiments(home: Home) -> int:
    """How many the ledger holds."""
    ledger = open_ledger(home)
    count = len(ledger.values(Experiment.select(Experiment.id)))
    ledger.close()
    return count


def command(*argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command in this process: status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as streams:
        streams.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        streams.setattr(sys, "stdout", out)
        streams.setattr(sys, "stderr", err)
        status = main(list(argv))
    return status, out.getvalue(), err.getvalue()


def assert_one_line(error: str) -> None:
    """What people are told is one line that no terminal obeys."""
    assert error.startswith("ftd: "), error
    assert error.endswith("\n")
    assert error[:-1].isprintable()


def assert_quiet(text: str) -> None:
    """Nothing in it steers a terminal."""
    assert all(sign.isprintable() or sign == "\n" for sign in text), text


# Files that are none


@everything_odd_or_long
def test_no_odd_file_is_taken_for_a_spec(home: Home, odd: Path) -> None:
    """A fifo, a device, a folder, ...: refused at once by name, and nothing is enqueued."""
    status, _, error = command("enqueue", str(odd))
    assert status == 2
    assert_one_line(error)
    assert str(odd) in error
    assert num_experiments(home) == 1


@everything_odd
def test_no_odd_file_is_taken_for_settings(home: Home, odd: Path) -> None:
    """Neither as --config, nor in the home, nor where only the home's place is looked up."""
    with pytest.raises(ConfigError, match="odd"):
        config.load(Home(home.root, odd))
    (home.root / "ftd.toml").symlink_to(odd)
    with pytest.raises(ConfigError, match=r"ftd\.toml"):
        config.load(home)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("FTD_HOME")
        status, _, error = command("--config", str(odd), "runs")
    assert status == 2
    assert_one_line(error)
    assert str(odd) in error


@everything_odd_or_long
def test_no_odd_file_is_taken_for_weights(home: Home, odd: Path) -> None:
    """Refused when the spec is planned, and again when a worker would read it."""
    spec = f"""
experiment: f
job: finetune
layers: FT(1-)
model: {{name: resnet18, weights: {{file: {odd}}}}}
train: {{epochs: 1}}
target: {{dataset: digits}}
"""
    status, _, error = command("enqueue", "-", stdin=spec.encode())
    assert status == 2
    assert_one_line(error)
    assert "standard input:5: model.weights.file" in error
    assert num_experiments(home) == 1
    with pytest.raises(FtdError):
        sources.resolve("resnet18", sources.WeightsFile(file=str(odd)), Path("/"))
    with pytest.raises(WeightsError):
        read(odd)


@everything_odd
def test_no_odd_file_is_taken_for_an_image(tmp_path: Path, odd: Path) -> None:
    """What is called like an image and is none is left out or named; nobody waits for it."""
    for name in ("a/1.png", "b/2.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(path)
    bad = tmp_path / "images" / "b" / "3.png"
    bad.symlink_to(odd)
    listing = folder_listing(tmp_path / "images", given=False)
    if "b/3.png" in listing.ids:
        with pytest.raises(UNREADABLE):
            listing.content(listing.ids.index("b/3.png"))


@everything_odd
def test_no_odd_file_is_taken_for_what_a_worker_left(tmp_path: Path, odd: Path) -> None:
    """In an attempt's directory nothing but files counts, whatever has their names."""
    directory = tmp_path / "attempts" / "1"
    directory.mkdir(parents=True)
    for name in (WORKER, RESULT, STOP, ORDER, EVENTS):
        (directory / name).symlink_to(odd)
    assert isinstance(examine(directory, tmp_path / "lock", None), Over)
    assert files.complete_lines(directory / EVENTS, 0)[0] in ([], [bytes(files.MAX_LINE_BYTES)])
    assert files.read_json(directory / ORDER) is None
    checkpoint = directory / "checkpoints" / "000000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / files.MANIFEST).symlink_to(odd)
    passed: list[Path] = []
    assert checkpoints.newest(directory.parent, 2, "k", lambda p, why: passed.append(p)) is None
    assert passed == [checkpoint]


def test_a_checkpoint_whose_file_became_a_fifo_is_passed_over(tmp_path: Path) -> None:
    """A recorded size of 0 does not make anybody wait for a writer."""
    folder = checkpoints.save(tmp_path / "1", 3, {"s": lambda path: path.touch()}, {"key": "k"})
    assert checkpoints.newest(tmp_path, 2, "k", lambda path, why: None) is not None
    (folder / "s").unlink()
    os.mkfifo(folder / "s")
    assert checkpoints.newest(tmp_path, 2, "k", lambda path, why: None) is None


def test_a_folder_inside_itself_is_refused(tmp_path: Path) -> None:
    """Links that lead back up would make listing it endless."""
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path)
    with pytest.raises(DataError, match="link to a folder that it is in"):
        fingerprint(Input("folder", str(tmp_path)))


def test_a_deep_folder_has_a_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep: there is no recursion to exhaust."""
    monkeypatch.chdir(tmp_path)
    depth = 1200
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    try:
        assert fingerprint(Input("folder", str(tmp_path))).startswith("listing:")
    finally:
        for _ in range(depth):  # pytest could not remove it
            os.chdir("..")
            os.rmdir("d")


# The command line


words = st.sampled_from(
    [*sorted(set(VERBS) - {"daemon", "doctor", "service", "init", "wait"}), "x", "e1", "r1", "r999"]
) | st.sampled_from(
    ["--json", "--why", "--set", "--limit", "--attempt", "--metric", "--state", "--metrics",
     "--priority", "--dry-run", "--", "-", "--csv", "a=1", "9" * 5000, "9" * 30, "nan", "1e999",
     "-1", "~nobody-of-this-name/x", "r" + "9" * 30, "e" + "0" * 400 + "1", "r\u0661"]
)  # fmt: skip
typed = st.text(  # whatever a shell can pass on: no NUL; bytes that are no UTF-8 come as \udc80...
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from("\udc80\udcff\x1b\u202e\n"),
    max_size=8,
).filter(lambda text: "/" not in text)


@SHARED
@example(["show", "\udcff"])
@example(["cancel", "x", "--why", "\udcff"])
@example(["show", "a\x1b[31m\nb"])
@example(["status", "\x1b[31m"])
@example(["--home", "~nobody-of-this-name/x", "status"])
@example(["--config", "~nobody-of-this-name/x", "status"])
@example(["--home", "a" * 5000, "status"])
@example(["enqueue", "a\nb\x1b.yaml"])
@given(st.lists(words | typed, max_size=5))
def test_no_command_line_is_a_crash(home: Home, argv: list[str]) -> None:
    """Any words end with 0, 1 or 2; complaints are one line and steer no terminal."""
    if argv and argv[0] == "fsck" and "--repair" in argv:
        return
    status, out, error = command(*argv)
    assert status in (0, 1, 2)
    assert_quiet(error)
    if "export" not in argv:  # its output is data
        assert_quiet(out)
    if error and not error.startswith("usage: "):
        assert_one_line(error)
        assert status
    assert num_experiments(home) == 1


@SHARED
@given(data=st.data())
def test_no_bytes_are_a_spec_by_accident(home: Home, data: st.DataObject) -> None:
    """A damaged spec is refused in one line that names it, or is another good one."""
    text = bytearray(REAL_SPEC)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = start + data.draw(st.integers(0, 6))
        text[start:stop] = data.draw(st.binary(max_size=6) | wild_text.map(_as_bytes))
    status, _, error = command("enqueue", "--dry-run", "-", stdin=bytes(text))
    assert status in (0, 2)
    if status:
        assert_one_line(error)
        assert "standard input" in error or "package" in error


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def test_a_spec_without_end_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is read up to the limit and no further."""
    with open("/dev/zero", "rb") as zeros:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(zeros))
        assert main(["enqueue", "-"]) == 2


def test_a_folder_that_has_no_text_for_a_name_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger keeps where a spec stood, as text."""
    folder = tmp_path / "\udcff"
    folder.mkdir()
    monkeypatch.chdir(folder)
    status, _, error = command("enqueue", "-", stdin=SPEC.encode())
    assert status == 2
    assert_one_line(error)
    assert num_experiments(home) == 1


def test_no_name_or_reason_steers_a_terminal(home: Home) -> None:
    """Escape sequences in specs and reasons are shown as what they are."""
    spec = 'experiment: y\njob: drill\ndescription: "a\\e[2J\\u202eb"\nfactors: {score: [1, 2]}\n'
    assert command("enqueue", "-", stdin=spec.encode())[0] == 0
    assert command("hold", "y", "--why", "\x1b]0;pwned\x07\u202e\n")[0] == 0
    for verb in (["show", "y"], ["show", "r5"], ["status"], ["runs"], ["runs", "y"]):
        status, out, _ = command(*verb)
        assert status == 0
        assert_quiet(out)


# Settings


@SHARED
@example(b"a = " + b"[" * 100_000)
@example(b"[stop]\ngrace_s = " + b"9" * 5000)
@example(b"[stop]\ngrace_s = 1e999")
@example(b"[devices]\ncpu_slots = 100000000000")
@example(b"a = '\xff'")
@example(b"\0")
@example(b'"\\u001b[31m" = 1')
@given(st.binary(max_size=40) | wild_text.map(_as_bytes))
def test_no_bytes_are_settings_by_accident(home: Home, text: bytes) -> None:
    """A damaged ftd.toml is refused in one line that names it, or is another good one."""
    path = home.root / "ftd.toml"
    middle = REAL_TOML.index(b"[stop]")
    for content in (text, REAL_TOML[:middle] + text + REAL_TOML[middle:]):
        path.write_bytes(content)
        try:
            found = config.load(home)
        except ConfigError as error:
            assert str(path) in str(error)
        else:
            assert found.devices.cpu_slots == "auto" or found.devices.cpu_slots <= 4096
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("FTD_HOME")
        patched.setenv("HOME", str(home.root))
        status, _, error = command("--config", str(path), "schema", "drill")
    assert status in (0, 1, 2)
    assert_quiet(error)


def test_a_lock_folder_that_can_have_no_name_is_refused() -> None:
    """A NUL in a path is an error like any other."""
    with pytest.raises(ConfigError, match="lock_directory"):
        config.lock_directory(config.parse('[devices]\nlock_directory = "a\\u0000b"', "f"))


# What workers write


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger with one live attempt; tests roll back what they do."""
    made = new_ledger(tmp_path_factory.mktemp("ledger"))
    enqueue(made, plan(levels=[1], replicates=1))
    assert execution.start_attempt(made, 1, "cpu:0") is not None
    yield made
    made.close()


@pytest.fixture(scope="module")
def live(ledger: Ledger) -> LiveAttempt:
    """The attempt."""
    return execution.live_attempts(ledger)[0]


KINDS = ["metric", "timing", "progress", "checkpoint", "resumed", "fingerprint", "approximate",
         "note", "x", None, 3]  # fmt: skip
FIELDS = ["t", "name", "value", "step", "num_steps", "shown", "seconds", "numerics", "why", "what",
          "data"]  # fmt: skip
plausible = {"t": 1.0, "name": "val/a", "value": 0.5, "step": 1, "num_steps": 2, "shown": {},
             "seconds": 1.0, "numerics": {}, "why": "w", "what": "n", "data": {}}  # fmt: skip
event_lines = (
    st.builds(
        lambda kind, changed, left_out: json.dumps(
            {"kind": kind, **{k: v for k, v in (plausible | changed).items() if k not in left_out}}
        ).encode(),
        st.sampled_from(KINDS),
        st.dictionaries(st.sampled_from(FIELDS), anything, max_size=3),
        st.sets(st.sampled_from(FIELDS), max_size=2),
    )
    | st.binary(max_size=30)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(UGLY_JSON)
)
GOOD_LINE = b'{"t":1,"kind":"metric","name":"test/last","value":0.25,"step":7}'


@SHARED
@given(st.lists(event_lines, max_size=6))
def test_no_event_stops_those_behind_it(
    tmp_path: Path, ledger: Ledger, live: LiveAttempt, lines: list[bytes]
) -> None:
    """Every line is taken in or recorded as unreadable; the daemon goes on to the next."""
    stream = tmp_path / EVENTS
    stream.write_bytes(b"\n".join([*lines, GOOD_LINE]) + b"\n")
    with ledger.db.atomic() as transaction:
        ingest(ledger, live.id, stream)
        last = ledger.rows(Metric.select(Metric.value).where(Metric.name == "last"))
        for row in ledger.rows(Event.select()):
            json.dumps(row, allow_nan=False).encode()
        transaction.rollback()
    assert [row["value"] for row in last] == [0.25]


def test_a_line_without_end_is_got_past(
    tmp_path: Path, ledger: Ledger, live: LiveAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded, and what stands behind the endless line is read."""
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 5000)
    stream = tmp_path / EVENTS
    stream.write_bytes(b"x" * 23_456 + b"\n" + GOOD_LINE + b"\n")
    monkeypatch.setattr(files.complete_lines, "__defaults__", (1000,))
    with ledger.db.atomic() as transaction:
        ingest(ledger, live.id, stream)
        names = ledger.values(Metric.select(Metric.name))
        unreadable = ledger.values(Event.select(Event.id).where(Event.kind == "unreadable event"))
        transaction.rollback()
    assert names == ["last"]
    assert len(unreadable) == 5
    with pytest.raises(ValueError, match="limit"):
        files.Stream(tmp_path / "own").append({"text": "x" * 5000})


RESULT_FIELDS = [*Result.__dataclass_fields__, "new"]
result_values = st.builds(
    lambda changed: {"outcome": "completed", "metrics": {"test/a": 1.0}, **changed},
    st.dictionaries(
        st.sampled_from(RESULT_FIELDS),
        anything
        | st.dictionaries(wild_text, numbers, max_size=2)
        | st.lists(
            st.fixed_dictionaries({"name": wild_text, "bytes": numbers, "sha256": wild_text})
        ),
        max_size=3,
    ),
)


@SHARED
@example({"outcome": "completed", "num_steps": 2**63})
@example({"outcome": "completed", "metrics": {"test/a": 10**400}})
@example({"outcome": "completed", "metrics": {"\ud800": 1.0}})
@example({"outcome": "completed", "artifacts": [{"name": "../../x", "bytes": 1, "sha256": ""}]})
@example({"outcome": "completed", "events_offset": "9"})
@example({"outcome": "completed", "error": {"a": 1}})
@given(result_values)
def test_no_result_stops_the_daemon(
    tmp_path: Path, ledger: Ledger, live: LiveAttempt, value: dict[str, Any]
) -> None:
    """A result is damaged, or can be kept as it is."""
    (tmp_path / EVENTS).touch()
    (tmp_path / RESULT).write_bytes(json.dumps(value).encode())
    found = examine(tmp_path, tmp_path / "lock", None)
    assert isinstance(found, Over)
    assert found.damaged == (found.result is None)
    if found.result is not None:
        with ledger.db.atomic() as transaction:
            ending = Ending(found.result.outcome, RunState.DONE, found.result)
            execution.end_attempt(ledger, live, ending)
            transaction.rollback()


json_bytes = (
    st.sampled_from(UGLY_JSON)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["why", "boot_id", "pid", "start_ticks", "files", "key", "numerics"]),
        anything,
    ).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=30)
)


@SHARED
@example(json.dumps({"boot_id": "x", "pid": 10**400, "start_ticks": 1}).encode())
@example(json.dumps({"files": [], "key": "k"}).encode())
@example(json.dumps({"files": {"s": {"bytes": 1}}, "key": "k"}).encode())
@example(json.dumps({"files": {}, "key": "k", "numerics": [1]}).encode())
@example(json.dumps({"files": {"\0": {"bytes": 1, "sha256": ""}}, "key": "k"}).encode())
@given(json_bytes)
def test_no_small_file_is_a_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Identities, stop requests, results, manifests and orders that are none are passed over."""
    root = tmp_path_factory.mktemp("home")
    directory = root / "runs" / "r1" / "attempts" / "1"
    folder = directory / "checkpoints" / "000000003"
    folder.mkdir(parents=True)
    for path in (
        root / "daemon.json", directory / WORKER, directory / RESULT, directory / STOP,
        directory / ORDER, folder / files.MANIFEST,
    ):  # fmt: skip
        path.write_bytes(data)
    assert daemon_identity(Home(root)) is None
    found = examine(directory, root / "runs" / "r1" / "lock", None)
    assert not isinstance(found, Alive | Blocked)
    second = directory.with_name("2")
    second.mkdir()
    (second / STOP).write_bytes(data)
    context = AttemptContext(second, order(number=2))
    context.fingerprint({"device": "cpu"})
    restored = context.restore()
    assert restored is None or restored.manifest["files"] == {}
    context.signalled()
    assert isinstance(context.stop_request(), str)
    context.close()


@SHARED
@given(st.dictionaries(st.sampled_from(["run_id", "job", "seeds", "new"]), anything), st.booleans())
def test_a_damaged_order_is_said_and_nothing_runs(
    tmp_path: Path, changed: dict[str, Any], whole: bool
) -> None:
    """Without a complete order a worker ends with 2 and one line, before it takes the lock."""
    value = {**order().as_json(), **changed} if whole else changed
    directory = tmp_path / "attempts" / "1"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ORDER).write_text(json.dumps(value))
    if set(value) == set(Order.__dataclass_fields__):
        return
    error = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stderr", error)
        assert worker(directory) == 2
    assert str(directory / ORDER) in error.getvalue()
    assert error.getvalue().count("\n") == 1
    assert not (tmp_path / "lock").exists()


# The queue


@SHARED
@example(b'{"id": "1", "name": "ftd.daemon.queue.admit", "args": [[]]}')
@example(b'{"id": "1", "name": "ftd.daemon.queue.admit", "args": [%d]}' % 10**30)
@example(b'{"id": "1", "name": "ftd.daemon.queue.admit", "args": []}')
@given(
    st.binary(max_size=40)
    | st.builds(
        lambda name, args: json.dumps({"id": "1", "name": name, "args": args}).encode(),
        st.sampled_from(["ftd.daemon.queue.admit", "admit", "os.system"]) | wild_text,
        st.lists(anything, max_size=2) | anything,
    )
    | st.sampled_from(UGLY_JSON)
)
def test_no_message_stays_in_the_way(ledger: Ledger, message: bytes) -> None:
    """Whatever is in the queue is handled or dropped, and admits nothing that is not there."""
    queue = Queue(ledger, admit=lambda experiment: wishes.admit(ledger, experiment))
    with ledger.db.atomic() as transaction:
        ledger.db.execute_sql(
            "insert into task (queue, data, priority) values ('ftd', ?, 9)", (message,)
        )
        assert queue.pull()
        assert queue.size() == 0
        transaction.rollback()


# Weights and images


ODD_TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "as large as the machine": lambda: torch.zeros(1, dtype=torch.float16).expand(1 << 44),
    "sparse": lambda: torch.zeros(2).to_sparse(),
    "without content": lambda: torch.zeros(2, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)]),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
@pytest.mark.filterwarnings("ignore")
def test_no_odd_tensor_is_a_crash(tmp_path: Path, kind: str) -> None:
    """What is no plain tensor of a plausible size is refused by name before it takes memory."""
    path = tmp_path / "w.pth"
    torch.save({"conv1.weight": ODD_TENSORS[kind]()}, path)
    with pytest.raises(WeightsError, match=r"conv1|damaged"):
        read(path)


def _picture(kind: str, mode: str, **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


PICTURES = [
    _picture("JPEG", "RGB"), _picture("JPEG", "CMYK"), _picture("PNG", "RGBA"),
    _picture("PNG", "P"), _picture("PNG", "I;16"), _picture("GIF", "P"), _picture("BMP", "RGB"),
    _picture("PPM", "L"), _picture("TIFF", "RGB", compression="tiff_lzw"),
    _picture("TIFF", "1", compression="group4"), _picture("WEBP", "RGB"),
]  # fmt: skip


@pytest.fixture
def decode(tmp_path: Path) -> Callable[[bytes], object]:
    """Decodes bytes as the image of a folder is decoded."""
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
    path = tmp_path / "images" / "a" / "1.png"
    path.touch()
    listing = folder_listing(tmp_path / "images", given=False)

    def decoded(content: bytes) -> object:
        path.write_bytes(content)
        return square(listing.image(listing.content(0)), 8, "bilinear")

    return decoded


@SHARED
@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(PICTURES), st.data())
def test_no_damaged_image_is_a_crash(
    decode: Callable[[bytes], object], picture: bytes, data: st.DataObject
) -> None:
    """Damaged bytes still decode, or fail in one of the ways that name the image."""
    damaged = bytearray(picture)
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(damaged)))
        damaged[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        decode(bytes(damaged))
    except UNREADABLE:
        return


def test_no_image_is_a_program(decode: Callable[[bytes], object]) -> None:
    """PostScript, which Pillow would hand to an interpreter, is no image, whatever its name."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "EPS")
    with pytest.raises(UNREADABLE, match="identify"):
        decode(stream.getvalue())


def test_an_image_that_unpacks_to_gigabytes_is_refused(decode: Callable[[bytes], object]) -> None:
    """A few bytes that claim a giant picture are not decoded."""
    bomb = bytearray(_picture("PNG", "L"))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(UNREADABLE):
        decode(bytes(bomb))


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """An image or class whose name is not UTF-8 is named; its name could not be written down."""
    for name in ("a/1.png", "b/\udcff.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="not UTF-8"):
        folder_listing(tmp_path, given=False)
