"""Kills of workers, daemon and both: every run ends once and equals its uninterrupted twin."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.homes import LiveHome, outcome_of

SPEC = """
experiment: twin
job: drill
steps: 40
step_s: 0.02
factors: {score: [0.2, 0.7]}
seed: 4
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the spec gives when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home")
    home.enqueue(SPEC)
    assert home.finish() == 0
    return outcome_of(home)


@pytest.mark.parametrize("victim", ["worker", "daemon", "both"])
@pytest.mark.parametrize("steps", [(1,), (5, 17, 18), (39,)], ids=str)
def test_a_killed_run_equals_its_twin(
    tmp_path: Path, uninterrupted: object, victim: str, steps: tuple[int, ...]
) -> None:
    """SIGKILL at any step, of whomever, changes neither digests nor metric rows."""
    home = LiveHome(tmp_path / "home")
    home.enqueue(SPEC)
    home.start_daemon()
    for step in steps:
        home.until_step(step)
        if victim in ("daemon", "both"):
            home.kill_daemon()
        if victim in ("worker", "both"):
            home.kill_workers()
        if victim in ("daemon", "both"):
            home.start_daemon()
    home.stop_daemon()
    assert home.finish() == 0
    assert outcome_of(home) == uninterrupted
    for run in home.runs():
        attempts = home.json("show", run["id"])["attempts"]
        assert [a["outcome"] for a in attempts].count("completed") == 1
        assert attempts[-1]["outcome"] == "completed"


def test_a_resumed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """After a kill the next attempt starts at the newest checkpoint, not at step 0."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SPEC.replace("[0.2, 0.7]", "[0.2]"))
    home.start_daemon()
    home.until_step(12)
    assert home.kill_workers() == 1
    home.until_states("done")
    home.stop_daemon()
    first, *_, last = home.json("show", "r1")["attempts"]
    assert first["outcome"] == "killed"
    assert last["resumed_from_step"] >= 10


def test_workers_outlive_the_daemon_and_are_adopted(tmp_path: Path) -> None:
    """A daemon that dies leaves its workers running; the next one follows them to their end."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SPEC.replace("[0.2, 0.7]", "[0.2]").replace("steps: 40", "steps: 150"))
    home.start_daemon()
    home.until_step(3)
    (worker,) = home.workers()
    home.kill_daemon()
    assert home.workers() == [worker]
    assert home.finish() == 0
    attempts = home.json("show", "r1")["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["completed"]
    assert attempts[0]["worker"]["pid"] == worker.pid
    assert "adopted" in home.log()


def test_a_worker_that_ends_while_no_daemon_watches_is_counted(tmp_path: Path) -> None:
    """A result sealed in the daemon's absence decides, though nobody saw the exit status."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SPEC.replace("[0.2, 0.7]", "[0.2]"))
    home.start_daemon()
    home.until_step(3)
    home.kill_daemon()
    home.until(lambda: not home.workers(), "the worker has ended")
    assert home.finish() == 0
    (attempt,) = home.json("show", "r1")["attempts"]
    assert attempt["outcome"] == "completed"


def test_a_daemon_asked_to_leave_leaves_its_workers_running(tmp_path: Path) -> None:
    """SIGTERM of the daemon ends only the daemon, at once and with status 0."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SPEC.replace("[0.2, 0.7]", "[0.2]").replace("steps: 40", "steps: 150"))
    home.start_daemon()
    home.until_step(3)
    assert home.stop_daemon() == 0
    assert len(home.workers()) == 1
    assert home.finish() == 0
    assert home.runs()[0]["attempts"] == 1


@pytest.mark.parametrize(
    ("number", "outcome", "says"),
    [
        (signal.SIGRTMIN + 6, "killed", f"signal {signal.SIGRTMIN + 6}"),
        (signal.SIGSEGV, "failed", "SIGSEGV"),
    ],
)
def test_a_death_by_any_signal_is_understood(
    tmp_path: Path, number: int, outcome: str, says: str
) -> None:
    """A crash is a failure of the job, any other signal (some have no names) somebody's doing."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SPEC.replace("[0.2, 0.7]", "[0.2]"))
    home.start_daemon()
    home.until_step(3)
    (worker,) = home.workers()
    os.kill(worker.pid, number)
    home.until_states("done")
    assert home.stop_daemon() == 0
    first, *_ = home.json("show", "r1")["attempts"]
    assert first["outcome"] == outcome
    assert says in first["error"]
