"""After a power cut at any moment, what was reported durable is there and nothing half is used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from ftd import files
from ftd.daemon.evidence import Over, examine
from ftd.layout import Home
from ftd.ledger import execution
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.ingest import ingest
from ftd.ledger.models import Metric
from ftd.process import boot_id
from ftd.protocol import ARTIFACTS, EVENTS, ORDER, RESULT, Result
from ftd.states import Outcome
from ftd.store import Store
from ftd.worker import checkpoints, context
from ftd.worker.main import attempt
from tests.ledgers import enqueue, new_ledger, plan
from tests.orders import order
from tests.powercut import Recorder, durable_names, power_cuts, put

STEPS = 7
RUN = Path("runs") / "r1"
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"
GO_ON_EVERY = 20  # of the states, one in so many is worked on to the end

Marks = Mapping[str, Any]


@pytest.fixture(scope="module")
def ram() -> Iterator[Path]:
    """A folder in memory, if there is one: thousands of small trees are made and removed."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Workers and daemons that run inside this process change its signal handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after a power cut need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@dataclass(frozen=True)
class Written:
    """What two attempts wrote while they were recorded, as it is when nothing goes wrong."""

    recorder: Recorder
    streams: Mapping[int, bytes]  # by attempt
    states: Mapping[int, bytes]  # the content of every checkpoint, by step
    result: Result
    artifacts: Mapping[str, bytes]


def record_attempts(home: Path, unsynced: Callable[[Path], bool] = lambda path: False) -> Written:
    """A worker that vanishes after step 4, and the next attempt, which goes on to the end."""
    home.mkdir(parents=True)
    recorder = Recorder(home, unsynced)
    with pytest.MonkeyPatch.context() as patched, recorder:
        report_saves(recorder, patched)
        with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as vanishing:
            vanishing.setattr(context.AttemptContext, "progress", vanish)
            execute(home, 1)
        second = execute(home, 2, checkpoint_every_steps=1)
        recorder.mark(finished=True)
    result = Result.from_json(files.read_json(second / RESULT) or {})
    assert result.outcome == Outcome.COMPLETED
    states = {}
    for moment in recorder.moments:
        for content in moment.now.values():
            if content.startswith(b'{"step": ') and content.endswith(b"]}"):
                states[json.loads(content)["step"]] = content
    assert sorted(states) == [2, 4, 5, 6, 7]
    return Written(
        recorder,
        streams={n: (home / RUN / "attempts" / str(n) / EVENTS).read_bytes() for n in (1, 2)},
        states=states,
        result=result,
        artifacts={path.name: path.read_bytes() for path in (second / ARTIFACTS).iterdir()},
    )


def execute(home: Path, number: int, **changed: Any) -> Path:
    """Execute an attempt in this process; its directory is made as the daemon makes it."""
    directory = home / RUN / "attempts" / str(number)
    directory.mkdir(parents=True, exist_ok=True)
    made = order(number=number, store=str(home / "store"), params={"steps": STEPS}, **changed)
    files.seal_json(directory / ORDER, made.as_json(), lasting=False)
    assert attempt(directory, made) == 0
    return directory


def report_saves(recorder: Recorder, patched: pytest.MonkeyPatch) -> None:
    """Every checkpoint counts as reported as soon as saving it has returned."""
    real = checkpoints.save

    def save(directory: Path, step: int, *rest: Any) -> Path:
        folder = real(directory, step, *rest)
        recorder.mark(saved=step)
        return folder

    patched.setattr(context, "save", save)


def vanish(self: object, step: int, num_steps: int, **shown: object) -> None:
    """In place of a progress report: at step 5 nothing is done any more."""
    if step == 5:
        raise KeyboardInterrupt


def check_attempts(home: Path, marks: Marks, written: Written) -> None:
    """Look at what a power cut left as the daemon and the next worker do; assert the promises."""
    attempts = home / RUN / "attempts"
    passed: list[Path] = []
    found = checkpoints.newest(attempts, 99, "k", lambda folder, why: passed.append(folder))
    assert passed == [], "a checkpoint that is there is whole"
    assert (found.step if found else 0) >= marks.get("saved", 0), "a saved one is found again"
    if found is not None:
        assert found.path("state.json").read_bytes() == written.states[found.step]
        events = attempts / str(found.attempt) / EVENTS
        assert events.exists(), "the events that a checkpoint speaks of are there"
        offset = found.manifest["events_offset"]
        assert events.read_bytes()[:offset] == written.streams[found.attempt][:offset]
    over = examine(attempts / "2", home / RUN / "lock", None)
    assert isinstance(over, Over)
    assert not over.damaged, "a result that is there is whole, and so are its events"
    assert over.result is not None or not marks.get("finished"), "a sealed result stays"
    if over.result is not None:
        assert over.result == written.result
        stream = (attempts / "2" / EVENTS).read_bytes()
        assert stream[: over.result.events_offset] == written.streams[2]
        kept = attempts / "2" / ARTIFACTS
        for name, content in written.artifacts.items():
            assert (kept / name).exists(), "the artifacts that a result speaks of are there"
            assert (kept / name).read_bytes() == content


def after_power_cuts(recorder: Recorder, scratch: Path) -> Iterator[tuple[Path, Marks]]:
    """Every state that a power cut may leave, on a disk and after a reboot."""
    scratch.mkdir(parents=True)
    for count, (tree, marks) in enumerate(power_cuts(recorder)):
        rebooted = {
            name: content and content.replace(boot_id().encode(), OTHER_BOOT.encode())
            for name, content in tree.items()
        }
        home = put(rebooted, scratch / str(count))
        yield home, marks
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def written(ram: Path) -> Written:
    """Two recorded attempts."""
    return record_attempts(ram / "recorded")


def test_an_attempt_survives_a_power_cut_at_any_moment(
    ram: Path, written: Written, no_disk: None
) -> None:
    """Saved checkpoints are found, whole, with their events; a result has all it speaks of; and
    whatever is left, the next attempt ends with the digest of an undisturbed run."""
    count = 0
    for home, marks in after_power_cuts(written.recorder, ram / "attempts"):
        check_attempts(home, marks, written)
        if count % GO_ON_EVERY == 0:
            result = files.read_json(execute(home, 3) / RESULT)
            assert result is not None and result["state_sha256"] == written.result.state_sha256
        count += 1
    assert count > 500


@pytest.mark.parametrize(
    "unsynced",
    [
        lambda path: path.name == "state.json",
        lambda path: path.name.startswith(".manifest.json"),
        lambda path: path.name.startswith(".result.json"),
        lambda path: path.name == EVENTS,
        lambda path: path.name == "checkpoints",
        lambda path: path.name.startswith(".00000000"),
        lambda path: path.name == "artifacts",
        lambda path: path.name in ("1", "2"),
        lambda path: path.name == "attempts",
        lambda path: path.name == RUN.name,
        lambda path: path.name == "runs",
    ],
    ids=[
        "payload", "manifest", "result", "events", "checkpoints", "checkpoint's folder",
        "artifacts", "attempt", "attempts", "run", "runs",
    ],
)  # fmt: skip
def test_every_fsync_matters(
    ram: Path, no_disk: None, unsynced: Callable[[Path], bool], request: pytest.FixtureRequest
) -> None:
    """With any one of them taken out, a power cut breaks a promise."""
    place = ram / request.node.callspec.id
    without = record_attempts(place / "recorded", unsynced)
    without.recorder.moments.reverse()  # most breaches show at the end
    with pytest.raises(AssertionError):
        for home, marks in after_power_cuts(without.recorder, place / "cut"):
            check_attempts(home, marks, without)


def test_the_old_checkpoint_stays_until_the_new_one_is_durable(
    ram: Path, no_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed before the new one is sealed, the old ones would be missed after a power cut."""
    seal = files.seal_folder

    def removing_first(folder: Path, *rest: Any) -> None:
        for old in folder.parent.glob("0*"):
            shutil.rmtree(old)
        seal(folder, *rest)

    monkeypatch.setattr(checkpoints, "seal_folder", removing_first)
    hasty = record_attempts(ram / "hasty")
    with pytest.raises(AssertionError, match=r"found again|is whole"):
        for home, marks in after_power_cuts(hasty.recorder, ram / "hasty-cut"):
            check_attempts(home, marks, hasty)


def test_a_torn_stream_is_taken_in_up_to_its_tear(
    tmp_path: Path, ram: Path, written: Written
) -> None:
    """Every whole line up to the tear becomes its row, and nothing else becomes one."""
    ledger = new_ledger(tmp_path)
    enqueue(ledger, plan(levels=[1], replicates=1))
    live = execution.start_attempt(ledger, 1, "cpu:0")
    assert live is not None
    torn = {
        content
        for tree, _ in power_cuts(written.recorder)
        if (content := tree.get(str(RUN / "attempts" / "2" / EVENTS)))
    }
    assert len(torn) > 30
    stream = ram / "torn.jsonl"
    for content in torn:
        stream.write_bytes(content)
        lines = written.streams[2].splitlines(keepends=True)
        whole = takewhile(
            lambda pair: pair[0] == pair[1], zip(lines, content.splitlines(True), strict=False)
        )
        assert taken_in(ledger, live.id, stream) == metrics_in(line for line, _ in whole)
    ledger.close()


def taken_in(ledger: Ledger, attempt: int, stream: Path) -> dict[tuple[str, int], float]:
    """The metric rows that a stream becomes; the ledger is left as it was."""
    with ledger.db.atomic() as transaction:
        ingest(ledger, attempt, stream)
        rows = ledger.rows(Metric.select(Metric.split, Metric.name, Metric.step, Metric.value))
        transaction.rollback()
    return {(f"{row['split']}/{row['name']}", row["step"]): row["value"] for row in rows}


def metrics_in(lines: Iterable[bytes]) -> dict[tuple[str, int], float]:
    """What whole lines of events say, read plainly."""
    events = [json.loads(line) for line in lines]
    return {(e["name"], e["step"]): e["value"] for e in events if e["kind"] == "metric"}


def test_a_sealed_file_is_its_old_or_its_new_self(ram: Path) -> None:
    """Once sealing has returned, a power cut leaves that content or a later one, never less."""
    folder = ram / "sealed"
    folder.mkdir()
    path = folder / "order.json"
    with Recorder(folder) as recorder:
        for version in (1, 2, 3):
            files.seal_json(path, {"version": version, "padding": "x" * 300 * version})
            recorder.mark(sealed=version)
    versions = set()
    for tree, marks in power_cuts(recorder):
        content = tree.get("order.json")
        version = json.loads(content)["version"] if content is not None else 0
        assert version >= marks.get("sealed", 0)
        versions.add(version)
    assert versions == {0, 1, 2, 3}


def test_a_store_entry_is_whole_or_made_again(ram: Path, no_disk: None) -> None:
    """Whatever a power cut leaves of an entry, asking for it gives its whole content."""
    payload = b"decoded" * 50
    place = ram / "stored"
    place.mkdir()

    def entry(root: Path, made: list[str]) -> bytes:
        def write(path: Path) -> None:
            made.append(path.name)
            path.write_bytes(payload)

        folder = Store(root).entry("images", {"a": 1}, lambda: {"x.npy": write})
        return (folder / "x.npy").read_bytes()

    with Recorder(place) as recorder:
        assert entry(place, []) == payload
    remade = []
    for home, _ in after_power_cuts(recorder, ram / "stored-cut"):
        remade.append(made := [])
        assert entry(home, made) == payload
    assert [] in remade
    assert ["x.npy"] in remade


def test_a_new_home_is_durable(ram: Path) -> None:
    """Before an enqueue is acknowledged the home's own name is on the disk."""
    root = ram / "machine"
    root.mkdir()
    with Recorder(root) as recorder:
        open_ledger(Home(root / "deep" / "home"), create=True).close()
    assert "deep/home/ledger.sqlite" in durable_names(recorder.moments[-1])
