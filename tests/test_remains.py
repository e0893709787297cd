"""What a dead worker leaves behind is ended with it, and nobody else is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ftd.daemon.remains import end_remains, holders
from ftd.files import try_lock
from ftd.process import Identity, identity_of, send_signal
from ftd.protocol import MARK
from tests.homes import LiveHome, helpers_of, outcome_of

SPEC = """
experiment: helped
job: drill
steps: 60
step_s: 0.02
children: 2
seed: 6
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the spec gives without helpers, when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home", slots=1)
    home.enqueue(SPEC.replace("children: 2", "children: 0"))
    assert home.finish() == 0
    return outcome_of(home)


def test_helpers_of_a_killed_worker_are_ended(tmp_path: Path, twin: object) -> None:
    """They would wait for ever for a worker that is gone; they neither block the run nor stay."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SPEC)
    home.start_daemon()
    home.until_step(7)
    (worker,) = home.workers()
    helpers = helpers_of(worker)
    assert len(helpers) == 2
    assert send_signal(worker, signal.SIGKILL)
    home.until_states("done")
    assert home.stop_daemon() == 0
    assert outcome_of(home) == twin
    assert [a["outcome"] for a in home.json("show", "r1")["attempts"]] == ["killed", "completed"]
    assert not any(identity_of(helper.pid) == helper for helper in helpers)
    assert "ended what its worker left" in home.log()


def test_a_killed_helper_is_a_failure_of_its_attempt(tmp_path: Path, twin: object) -> None:
    """The run goes on from its checkpoint, and the other helpers end with the worker."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SPEC)
    home.start_daemon()
    home.until_step(7)
    (worker,) = home.workers()
    helpers = helpers_of(worker)
    assert send_signal(helpers[0], signal.SIGKILL)
    home.until_states("done")
    assert home.stop_daemon() == 0
    assert outcome_of(home) == twin
    first, second = home.json("show", "r1")["attempts"]
    assert (first["outcome"], second["outcome"]) == ("failed", "completed")
    assert second["resumed_from_step"] >= 5
    assert not any(identity_of(helper.pid) == helper for helper in helpers)


def _leader(mark: Path, script: str) -> subprocess.Popen[bytes]:
    """A process that leads a session, marked as a worker in `mark`."""
    return subprocess.Popen(
        ["sh", "-c", script],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, MARK: str(mark)},
    )


def _dead_leader(mark: Path) -> tuple[Identity, Identity]:
    """A process that led a session and is dead, and the one that it left."""
    leader = _leader(mark, "sleep 600 & echo $!; exec sleep 600")
    assert leader.stdout is not None
    left = identity_of(int(leader.stdout.readline()))
    found = identity_of(leader.pid)
    assert left is not None and found is not None
    leader.kill()
    leader.wait()
    return found, left


def test_only_what_carries_the_attempts_mark_is_ended(tmp_path: Path) -> None:
    """A stranger's process is left alone though its session has the number of our worker."""
    worker, left = _dead_leader(tmp_path)
    try:
        assert end_remains(worker, tmp_path / "other") == 0
        assert end_remains(Identity("another boot", worker.pid, 1), tmp_path) == 0
        assert identity_of(left.pid) == left
        assert end_remains(worker, tmp_path) == 1
    finally:
        send_signal(left, signal.SIGKILL)


def test_helpers_are_ended_in_the_midst_of_exec(tmp_path: Path) -> None:
    """While a process replaces its program it shows no environment; it carries the mark still."""
    again = tmp_path / "again.sh"
    again.write_text('exec sh "$0"\n')
    count = 80
    leader = _leader(
        tmp_path, f"for _ in $(seq {count}); do sh {again} & done; echo; exec sleep 600"
    )
    assert leader.stdout is not None and leader.stdout.readline()
    worker = identity_of(leader.pid)
    assert worker is not None
    leader.kill()
    leader.wait()
    try:
        assert end_remains(worker, tmp_path) == count
    finally:
        while end_remains(worker, tmp_path):
            pass


def test_whoever_holds_a_lock_is_found(tmp_path: Path) -> None:
    """So that a person can be told whose end a run waits for."""
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    assert holders(tmp_path / "lock") == [os.getpid()]
    os.close(lock)
    assert holders(tmp_path / "lock") == []
