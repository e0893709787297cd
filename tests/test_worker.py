"""A worker on its own: fence, result, stop, and checkpoints that cannot be trusted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ftd.files import read_json, seal_json, try_lock
from ftd.job import Input
from ftd.protocol import CHECKPOINTS, EVENTS, ORDER, RESULT, REVOKED, STOP, WORKER
from ftd.worker.context import AttemptContext
from tests.orders import order

LONG = {"steps": 10_000, "step_s": 0.01}


def _attempt(run: Path, number: int = 1, **changed: Any) -> Path:
    directory = run / "attempts" / str(number)
    directory.mkdir(parents=True)
    seal_json(directory / ORDER, order(number=number, **changed).as_json())
    return directory


def _start(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-P", "-m", "ftd.worker", str(directory)])


def _execute(directory: Path) -> dict[str, Any]:
    assert _start(directory).wait() == 0
    result = read_json(directory / RESULT)
    assert result is not None
    return result


def _events(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / EVENTS).read_bytes().splitlines()]


def _until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_a_finished_attempt_has_a_result_and_says_who_worked(tmp_path: Path) -> None:
    """The result is sealed with the digest of the state and the end of the event stream."""
    directory = _attempt(tmp_path)
    result = _execute(directory)
    assert result["outcome"] == "completed"
    assert len(result["state_sha256"]) == 64
    assert result["events_offset"] == (directory / EVENTS).stat().st_size
    assert read_json(directory / WORKER) is not None


def test_a_worker_without_the_lock_leaves_no_trace(tmp_path: Path) -> None:
    """A late twin of a run that somebody else executes goes away before its first write."""
    directory = _attempt(tmp_path)
    held = try_lock(tmp_path / "lock")
    assert held is not None
    assert _start(directory).wait() == 3
    os.close(held)
    assert sorted(path.name for path in directory.iterdir()) == [ORDER]


@pytest.mark.parametrize("fence", [REVOKED, RESULT])
def test_a_revoked_or_finished_attempt_never_starts(tmp_path: Path, fence: str) -> None:
    """Once called off, or once its result is there, an attempt stays as it is."""
    directory = _attempt(tmp_path)
    seal_json(directory / fence, {})
    assert _start(directory).wait() == 3
    assert not (directory / WORKER).exists()


@pytest.mark.parametrize("by", ["signal", "file"])
def test_a_stop_is_a_checkpoint(tmp_path: Path, by: str) -> None:
    """Asked by signal or by file, the worker saves the step it finished and leaves with 75."""
    directory = _attempt(tmp_path, params=LONG, checkpoint_every_steps=None)
    worker = _start(directory)
    _until(directory / WORKER)
    if by == "file":
        seal_json(directory / STOP, {"why": "cancel"})
    else:
        time.sleep(0.2)
        worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 75
    result = read_json(directory / RESULT)
    assert result is not None
    assert (result["outcome"], result["why"]) == (
        "stopped",
        "cancel" if by == "file" else "signal",
    )
    assert len(list((directory / CHECKPOINTS).iterdir())) == 1


def _interrupted(run: Path) -> Path:
    """A first attempt that died after 6 steps, leaving checkpoints of steps 4 and 6."""
    whole = _attempt(run, params={"steps": 7})
    _execute(whole)
    (whole / RESULT).unlink()
    assert sorted(path.name for path in (whole / CHECKPOINTS).iterdir()) == [
        "000000004",
        "000000006",
    ]
    return whole


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the uninterrupted run."""
    return str(
        _execute(_attempt(tmp_path_factory.mktemp("twin"), params={"steps": 7}))["state_sha256"]
    )


@pytest.mark.parametrize(
    ("newest", "older", "resumed"),
    [
        ("good", "good", 6),
        ("truncated", "good", 4),
        ("flipped", "good", 4),
        ("empty", "good", 4),
        ("missing", "good", 4),
        ("other key", "good", 4),
        ("truncated", "flipped", 0),
    ],
)
def test_the_newest_good_checkpoint_counts(
    tmp_path: Path, twin: str, newest: str, older: str, resumed: int
) -> None:
    """Damaged ones are passed over, said so, and the result is that of an uninterrupted run."""
    checkpoints = _interrupted(tmp_path) / CHECKPOINTS
    _damage(checkpoints / "000000006", newest)
    _damage(checkpoints / "000000004", older)
    second = _attempt(tmp_path, 2, params={"steps": 7})
    assert _execute(second)["state_sha256"] == twin
    events = _events(second)
    assert [event["step"] for event in events if event["kind"] == "resumed"] == [resumed]
    passed = [event for event in events if event.get("what") == "checkpoint passed over"]
    bad = [how for how in (newest, older) if how not in ("good", "missing")]
    assert len(passed) == len(bad)


def _damage(folder: Path, how: str) -> None:
    state = folder / "state.json"
    if how == "truncated":
        os.truncate(state, state.stat().st_size // 2)
    elif how == "flipped":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    elif how == "empty":
        os.truncate(state, 0)
    elif how == "missing":
        shutil.rmtree(folder)
    elif how == "other key":
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"key": "k"', '"key": "other"'))


def test_resuming_under_other_numerics_is_said(tmp_path: Path) -> None:
    """A resumed run whose numerics fingerprint differs is marked approximate, naming the change."""
    checkpoint = _interrupted(tmp_path) / CHECKPOINTS / "000000006" / "manifest.json"
    checkpoint.write_text(checkpoint.read_text().replace('"device": "cpu"', '"device": "abacus"'))
    second = _attempt(tmp_path, 2, params={"steps": 7})
    _execute(second)
    (why,) = [event["why"] for event in _events(second) if event["kind"] == "approximate"]
    assert "device: abacus -> cpu" in why


def test_changed_inputs_are_refused(tmp_path: Path) -> None:
    """Data that changed since the run was planned is refused, naming it."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "one.png").touch()
    planned = {"target": {"kind": "folder", "where": str(images), "fingerprint": "listing:old"}}
    result = _execute(_attempt(tmp_path / "run", inputs=planned))
    assert result["outcome"] == "refused"
    assert str(images) in result["error"]


def test_the_log_tells_the_attempts_story(tmp_path: Path) -> None:
    """Where it ran, how it ended, from where it resumed: also for a job that prints nothing."""
    first = _attempt(tmp_path, params={"steps": 5, "fail_at_step": 4, "fail_with": "error"})
    second = _attempt(tmp_path, 2)
    said = []
    for directory in (first, second):
        with (directory / "log.txt").open("wb") as log:
            command = [sys.executable, "-P", "-m", "ftd.worker", str(directory)]
            subprocess.run(command, stderr=log, check=True)
        said.append((directory / "log.txt").read_text().splitlines())
    assert said[0][0] == "r1, attempt 1: drill on cpu:0, 1 thread"
    assert said[0][-1] == "failed: RuntimeError: failed at step 4, as asked"
    assert said[1] == [
        "r1, attempt 2: drill on cpu:0, 1 thread", "resumes from step 4", "completed: 5 steps",
    ]  # fmt: skip


def test_an_input_is_looked_at_once_per_attempt(tmp_path: Path) -> None:
    """What was compared at its start is handed on: the folder, which is gone, is not read again."""
    planned = {"target": {"kind": "folder", "where": "/gone", "fingerprint": "listing:1"}}
    context = AttemptContext(_attempt(tmp_path), order(inputs=planned))
    try:
        assert context.verified(Input("folder", "/gone")) == "listing:1"
        with pytest.raises(LookupError, match="/other is no input"):
            context.verified(Input("folder", "/other"))
    finally:
        context.close()
