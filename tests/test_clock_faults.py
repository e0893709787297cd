"""Clocks that are wrong or jump, a daemon that is stopped, workers that die while it is away."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ftd.ledger.activity import running
from ftd.ledger.db import opened
from ftd.ledger.rows import LiveRow
from ftd.process import Identity, alive, send_signal
from ftd.protocol import EXIT_STOPPED, RESULT
from ftd.views.progress import remaining_s
from tests.homes import LiveHome, outcome_of, serving
from tests.wrongclock import WrongClock

SPEC = """
experiment: clock
job: drill
steps: 60
step_s: 0.02
seed: 6
limits: {time_s: 600}
"""
LARGE = SPEC.replace("step_s: 0.02", "width: 20000")
HOUR_S = 3600.0
STEP_S = 0.02
MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What the spec gives when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home")
    home.enqueue(SPEC)
    assert home.finish() == 0
    return outcome_of(home)


@pytest.fixture(scope="module")
def large_twin(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What the larger spec gives when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home")
    home.enqueue(LARGE)
    assert home.finish() == 0
    return outcome_of(home)


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    """A clock that can be set."""
    return WrongClock(tmp_path)


@pytest.fixture
def home(tmp_path: Path, clock: WrongClock) -> LiveHome:
    """A home whose daemon and workers go by that clock."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.launcher = clock.launcher
    return home


def _outcomes(home: LiveHome) -> list[str]:
    return [attempt["outcome"] for attempt in home.json("show", "r1")["attempts"]]


def _check_times(home: LiveHome) -> None:
    """Each attempt took about as long as its steps, and the run as long as its attempts."""
    for attempt in home.json("show", "r1")["attempts"]:
        took_s = attempt["ended_at"] - attempt["started_at"]
        from_step = attempt["resumed_from_step"] or 0
        steps = (attempt["checkpoint_step"] or from_step) - from_step
        assert 0.5 * STEP_S * steps < took_s < 600
    (run,) = home.runs()
    assert 0 < run["cost_actual_s"] < 600


@pytest.mark.parametrize("first", [HOUR_S, -HOUR_S])
def test_a_daemon_with_another_clock_adopts_what_runs(
    home: LiveHome, clock: WrongClock, twin: object, first: float
) -> None:
    """An hour ahead or behind, and the next daemon two hours off: nobody is declared lost."""
    clock.set_by(first)
    home.enqueue(SPEC)
    home.start_daemon()
    home.until_step(5)
    home.kill_daemon()
    clock.set_by(-first)
    assert home.finish() == 0
    assert "adopted" in home.log()
    assert _outcomes(home) == ["completed"]
    assert outcome_of(home) == twin
    _check_times(home)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_jumps_costs_no_run_its_time(
    home: LiveHome, clock: WrongClock, twin: object, jump_s: float
) -> None:
    """An hour more in one attempt neither ends it nor is taken from the next one's limit."""
    home.enqueue(SPEC)
    with serving(home):
        home.until_step(5)
        clock.set_by(jump_s)
        home.until_step(20)
        for worker in home.workers():
            send_signal(worker, signal.SIGSTOP)  # it shall not be done before it is killed
        assert not re.search(r"-\d\S* (s|min|h|d)\b", home.ftd("status").stdout)
        home.kill_workers()
        home.until_states("done")
    assert outcome_of(home) == twin
    assert _outcomes(home) == ["killed", "completed"]
    _check_times(home)
    assert not re.search(r"-\d\S* (s|min|h|d)\b", home.ftd("status").stdout)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_the_time_left_is_told_by_the_pace_whatever_the_clock_does(
    home: LiveHome, clock: WrongClock, jump_s: float
) -> None:
    """An hour that did not pass makes no step slower, or faster than light."""
    home.enqueue(SPEC.replace("60\n", "100000\n"))
    with serving(home):
        home.until_step(5)
        clock.set_by(jump_s)
        before = home.until(lambda: _told(home, None), "progress was told")
        between = home.until(lambda: _told(home, before), "it was told again")
        seen = home.until(lambda: _told(home, between), "it was told after the jump")
    left_s = remaining_s(seen)
    assert left_s is not None
    assert 100_000 * 0.02 * 0.9 < left_s < 100_000 * HOUR_S / 2 / seen.step


def _told(home: LiveHome, last: LiveRow | None) -> LiveRow | None:
    """The run as it executes now, once it has told its progress since `last`."""
    known = (None, last and last.progress["at"])
    with opened(home.home) as ledger:
        return next((row for row in running(ledger) if row.progress.get("at") not in known), None)


def test_a_back_off_never_lasts_longer_than_its_longest_wait_although_the_clock_was_set_back(
    home: LiveHome, clock: WrongClock
) -> None:
    """A run that failed while the clock was ahead does not wait until it is that late again."""
    settings = home.root / "ftd.toml"
    settings.write_text(settings.read_text().replace("backoff_s = 0.05", "backoff_s = 200"))
    clock.set_by(HOUR_S)
    home.enqueue(SPEC + "fail_at_step: 12\nfail_once: true\n")
    with serving(home):
        home.until(lambda: "ended" in home.log(), "it has failed")
        clock.set_by(0)
        home.until_states("done")
    assert _outcomes(home) == ["failed", "completed"]


def test_a_clock_that_jumps_shortens_no_grace(home: LiveHome, clock: WrongClock) -> None:
    """A worker that was asked to leave has its time to do so, although an hour seems to pass."""
    home.enqueue(SPEC.replace(f"step_s: {STEP_S}", "step_s: 2"))
    with serving(home):
        home.until_step(1)
        assert home.ftd("hold", "clock").returncode == 0
        home.until(lambda: "asked to checkpoint and leave" in home.log(), "it was asked to leave")
        clock.set_by(HOUR_S)
        home.until_states("held")
    (attempt,) = home.json("show", "r1")["attempts"]
    assert (attempt["outcome"], attempt["exit_status"]) == ("stopped", EXIT_STOPPED)
    assert "did not leave in time" not in home.log()


def test_a_daemon_that_was_stopped_catches_up(home: LiveHome) -> None:
    """While it was stopped a run ended, one was enqueued and one cancelled: all is carried out."""
    home.enqueue(SPEC.replace(f"step_s: {STEP_S}", "step_s: 0.05"))
    with serving(home):
        home.until_step(5)
        home.freeze_daemon()
        home.enqueue(SPEC.replace("clock", "later").replace("seed: 6", "seed: 7"))
        home.enqueue(SPEC.replace("clock", "unwanted").replace("seed: 6", "seed: 8"))
        assert home.ftd("cancel", "unwanted").returncode == 0
        result = home.home.attempt(1, 1) / RESULT
        home.until(result.exists, "the run has ended")
        assert home.states() == ["running", "queued", "cancelled"]
        home.thaw_daemon()
        home.until_states("done", "done", "cancelled")
    assert [run["attempts"] for run in home.runs()] == [1, 1, 0]


def test_a_run_that_is_cancelled_while_the_daemon_is_stopped_is_asked_to_leave(
    home: LiveHome,
) -> None:
    """The wish waits for the daemon, the worker for its request."""
    home.enqueue(SPEC.replace("60", "100000"))
    with serving(home):
        home.until_step(5)
        home.freeze_daemon()
        assert home.ftd("cancel", "clock").returncode == 0
        assert len(home.workers()) == 1
        home.thaw_daemon()
        home.until_states("cancelled")
        assert home.workers() == []
    assert _outcomes(home) == ["stopped"]


def _out_of_memory(worker: Identity) -> None:
    """Let the kernel kill a worker for its memory."""
    group = MEMORY / f"ftd-test-{worker.pid}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made ({error})")
    try:
        (group / "cgroup.procs").write_text(str(worker.pid))
        (group / "memory.limit_in_bytes").write_text("4096")
        while alive(worker):
            time.sleep(0.01)
        assert "oom_kill 1" in (group / "memory.oom_control").read_text()
    finally:
        with suppress(OSError):
            group.rmdir()


def _killed(worker: Identity) -> None:
    """SIGKILL, which is what a kill for memory looks like."""
    subprocess.run(["kill", "-KILL", str(worker.pid)], check=True)


@pytest.mark.parametrize("end", [_out_of_memory, _killed])
def test_a_worker_killed_for_its_memory_while_no_daemon_watches(
    home: LiveHome, large_twin: object, end: Callable[[Identity], None]
) -> None:
    """The next daemon finds it lost and lets the run go on from its checkpoint."""
    home.enqueue(LARGE)
    home.start_daemon()
    home.until_step(12)
    (worker,) = home.workers()
    home.kill_daemon()
    end(worker)
    assert home.finish() == 0
    assert outcome_of(home) == large_twin
    first, second = home.json("show", "r1")["attempts"]
    assert (first["outcome"], second["outcome"]) == ("lost", "completed")
    assert second["resumed_from_step"] >= 10
