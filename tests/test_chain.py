"""Runs that take turns in one worker: few processes, and all that holds for a run on its own."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftd import faults
from ftd.files import read_json
from ftd.ledger import details, execution, turns
from ftd.ledger.db import Ledger, open_ledger
from ftd.ledger.models import Attempt, Run
from ftd.ledger.reads import runs
from ftd.process import Identity
from ftd.protocol import LOG, WORKER
from ftd.states import RunState
from tests.homes import LiveHome, outcome_of, serving
from tests.ledgers import enqueue, new_ledger, plan

SPEC = """
experiment: tiny
job: drill
steps: 3
step_s: 0.01
factors: {score: [0.2, 0.7]}
replicates: 8
seed: 4
"""
SLOWER = SPEC.replace("0.01", "0.05")
RUNS = 16


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the runs give when each has a worker of its own."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home", every_steps=2)
    with (home.root / "ftd.toml").open("a") as config:
        config.write("[jobs]\nshare_workers = false\n")
    home.enqueue(SPEC)
    assert home.finish() == 0
    assert len(set(workers_of(home))) == RUNS
    return outcome_of(home)


def attempts_of(home: LiveHome) -> dict[int, list[dict[str, Any]]]:
    """Run id -> its attempts, as ``ftd show`` has them, without a process for each."""
    ledger = open_ledger(home.home)
    try:
        return {row.id: details.run_details(ledger, row.id)["attempts"] for row in runs(ledger)}
    finally:
        ledger.close()


def states_of(home: LiveHome) -> list[str]:
    """The state of every run."""
    ledger = open_ledger(home.home)
    try:
        return [str(row.state) for row in runs(ledger)]
    finally:
        ledger.close()


def until_done(home: LiveHome, count: int) -> None:
    """Wait until so many runs are done."""
    home.until(lambda: states_of(home).count("done") >= count, f"{count} are done")


def workers_of(home: LiveHome) -> list[int]:
    """The pid of the worker of every run's last attempt, by run."""
    return [attempts[-1]["worker"]["pid"] for attempts in attempts_of(home).values()]


def check(home: LiveHome, twin: Any) -> None:
    """Every run ended once, as in a worker of its own, and nothing is left."""
    assert outcome_of(home) == twin
    for attempts in attempts_of(home).values():
        outcomes = [attempt["outcome"] for attempt in attempts]
        assert outcomes.count("completed") == 1
        assert outcomes[-1] == "completed"
    status = home.json("status")
    assert {device["state"] for device in status["devices"]} == {"free"}
    done = home.ftd("fsck")
    assert done.returncode == 0, done.stdout


def finish(home: LiveHome) -> None:
    """Serve to the end, however often the daemon dies."""
    while home.finish() == -signal.SIGKILL:
        pass


def test_many_runs_take_few_workers_and_give_the_same(tmp_path: Path, twin: Any) -> None:
    """One worker per slot executes them all; digests, metrics and rows are those of single ones."""
    home = LiveHome(tmp_path / "home", every_steps=2)
    home.enqueue(SPEC)
    assert home.finish() == 0
    check(home, twin)
    assert len(set(workers_of(home))) == 2
    logs = [(home.home.attempt(number, 1) / LOG).read_text() for number in range(1, RUNS + 1)]
    assert all(f"r{number}, attempt 1" in text for number, text in enumerate(logs, 1))
    assert all(text.count("\n") == 2 for text in logs), "each has a log of its own"


def test_a_thousand_tiny_runs_cost_a_handful_of_processes(tmp_path: Path) -> None:
    """However many there are, a process is started per slot and not per run."""
    home = LiveHome(tmp_path / "home", every_steps=1000)
    home.enqueue("experiment: many\njob: drill\nsteps: 1\nreplicates: 150\n")
    assert home.finish() == 0
    started = Counter(
        Identity.from_json(read_json(said))
        for said in home.root.glob(f"runs/*/attempts/*/{WORKER}")
    )
    assert started.total() == 150
    assert len(started) <= 4
    assert set(states_of(home)) == {"done"}


def test_a_killed_worker_takes_only_the_run_with_it_that_it_executes(
    tmp_path: Path, twin: Any
) -> None:
    """What it had executed stays done, what it executes is tried again, the rest goes on."""
    home = LiveHome(tmp_path / "home", slots=1, every_steps=2)
    home.enqueue(SLOWER)
    with serving(home):
        for count in (3, 8):
            until_done(home, count)
            home.kill_workers()
        until_done(home, RUNS)
    found = [attempt for attempts in attempts_of(home).values() for attempt in attempts]
    assert Counter(a["outcome"] for a in found)["completed"] == RUNS
    assert RUNS <= len(found) <= RUNS + 2
    assert len({attempt["worker"]["pid"] for attempt in found}) >= 3


def test_a_killed_daemon_leaves_a_worker_that_is_adopted(tmp_path: Path) -> None:
    """The next daemon follows the run it executes to its end, and has others take turns again."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SLOWER)
    home.start_daemon()
    until_done(home, 3)
    home.kill_daemon()
    assert home.finish() == 0
    found = list(attempts_of(home).values())
    assert [attempts[-1]["outcome"] for attempts in found] == ["completed"] * RUNS
    assert len(set(workers_of(home))) == 2


@pytest.mark.parametrize("point", faults.TURNS)
def test_a_death_while_turns_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: Any, point: str
) -> None:
    """Daemon or worker dies between two runs: every one of them ends once, equal to its twin."""
    home = LiveHome(tmp_path / "home", every_steps=2)
    home.enqueue(SPEC)
    monkeypatch.setenv("FTD_FAULT", f"{point}@3")
    monkeypatch.setenv("FTD_FAULT_MARK", str(tmp_path / "mark"))
    finish(home)
    assert (tmp_path / "mark").exists(), "the point was never reached"
    check(home, twin)


def test_wishes_count_for_the_run_at_turn(tmp_path: Path) -> None:
    """One that is held is passed over, one that is cancelled leaves alone, the others are done."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SLOWER)
    home.enqueue("experiment: held\njob: drill\nsteps: 2\nseed: 5\n")
    home.enqueue("experiment: left\njob: drill\nsteps: 2000\nstep_s: 0.02\nseed: 6\n")
    home.enqueue("experiment: last\njob: drill\nsteps: 2\nseed: 7\n")
    assert home.ftd("hold", "held").returncode == 0
    with serving(home):
        home.until_step(3, f"r{RUNS + 2}")
        assert home.ftd("cancel", "left").returncode == 0
        home.until(lambda: states_of(home)[-1] == "done", "the last is done")
    assert states_of(home) == ["done"] * RUNS + ["held", "cancelled", "done"]
    found = attempts_of(home)
    pids = [a["worker"]["pid"] for number in (1, RUNS + 2) for a in found[number]]
    assert len(set(pids)) == 1, "it took its turn"
    assert found[RUNS + 3][0]["worker"]["pid"] not in pids


def test_a_time_limit_counts_from_the_turn(tmp_path: Path) -> None:
    """Runs before it use up nothing of it; a run of its own length is ended by it."""
    home = LiveHome(tmp_path / "home", slots=1)
    limit = "limits: {time_s: 2.5}\n"
    home.enqueue(SPEC.replace("step_s: 0.01", "step_s: 0.06") + limit)
    home.enqueue(f"experiment: late\njob: drill\nsteps: 2000\nstep_s: 0.02\nseed: 6\n{limit}")
    assert home.finish() == 1
    assert states_of(home) == ["done"] * RUNS + ["failed"]
    assert len(set(workers_of(home))) == 1
    found = attempts_of(home)
    (attempt,) = found[RUNS + 1]
    assert attempt["outcome"] == "timed_out"
    taken = [attempts[0] for attempts in found.values()]
    assert sum(a["ended_at"] - a["started_at"] for a in taken[:-1]) > 2.5
    assert all(a["ended_at"] - a["started_at"] < 2.5 for a in taken[:-1])


def test_a_crash_takes_one_run_which_is_tried_again_elsewhere(tmp_path: Path) -> None:
    """The runs before and after are done; the one that crashed begins in a process of its own."""
    home = LiveHome(tmp_path / "home", slots=1, every_steps=1)
    home.enqueue(SPEC.replace("[0.2, 0.7]", "[0.2]"))
    home.enqueue(
        SPEC.replace("tiny", "bad").replace("[0.2, 0.7]", "[0.7]").replace("8", "1")
        + "fail_at_step: 2\nfail_with: crash\nfail_once: true\n"
    )
    home.enqueue(SPEC.replace("tiny", "more").replace("[0.2, 0.7]", "[0.9]"))
    assert home.finish() == 0
    assert set(states_of(home)) == {"done"}
    found = attempts_of(home)
    first, second = found[9]
    assert (first["outcome"], second["outcome"]) == ("killed", "completed")
    assert first["worker"]["pid"] == found[8][0]["worker"]["pid"]
    others = {pid for pid in workers_of(home)[:8]}
    assert others == {first["worker"]["pid"]}
    assert second["worker"]["pid"] not in others


def test_a_run_of_another_kind_that_is_next_is_not_kept_waiting(tmp_path: Path) -> None:
    """Priority decides who is next; a worker that may not execute that run is let go."""
    home = LiveHome(tmp_path / "home", slots=1)
    home.enqueue(SLOWER)
    other = "experiment: other\njob: command\ncommand: ['true']\nseed: 1\n"
    with serving(home):
        until_done(home, 3)
        home.enqueue(other, "--priority", "5")
        home.until(lambda: states_of(home)[-1] in ("done", "failed"), "the other has its turn")
        assert "queued" in states_of(home)
        until_done(home, RUNS + 1)
    assert len(set(workers_of(home)[:RUNS])) == 2
    assert workers_of(home)[-1] not in workers_of(home)[:RUNS]


def test_a_worker_asked_to_leave_takes_no_more_turns(tmp_path: Path) -> None:
    """A SIGTERM from anywhere: it saves the run at turn and leaves; a new one goes on."""
    home = LiveHome(tmp_path / "home", slots=1, every_steps=1000)
    home.enqueue(SLOWER)
    with serving(home):
        until_done(home, 3)
        (worker,) = home.workers()
        os.kill(worker.pid, signal.SIGTERM)
        home.until(lambda: worker not in home.workers(), "it has left")
        until_done(home, RUNS)
    found = attempts_of(home).values()
    assert {a["outcome"] for some in found for a in some} <= {"completed", "stopped"}
    assert len(set(workers_of(home))) == 2


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    """A ledger with three queued runs, the first of which executes on cpu:0."""
    ledger = new_ledger(tmp_path)
    enqueue(ledger, plan(levels=(1, 2, 3), replicates=1))
    assert execution.start_attempt(ledger, 1, "cpu:0") is not None
    yield ledger
    ledger.close()


def test_the_next_turn_is_that_of_the_run_which_is_next(ledger: Ledger) -> None:
    """By priority and age, as for any device."""
    assert turns.next_turn(ledger, 1, time.time()) == 2
    ledger.write(Run.update(priority=3).where(Run.id == 3))
    assert turns.next_turn(ledger, 1, time.time()) == 3
    ledger.write(Run.update(state=RunState.HELD).where(Run.id > 1))
    assert turns.next_turn(ledger, 1, time.time()) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"job": "finetune"},
        {"job_version": 2},
        {"numerics": "fast"},
        {"threads": 2},
        {"inputs": {"job source": {"kind": "file", "where": "/x", "fingerprint": "y"}}},
        {"inputs": {"python": {"kind": "file", "where": "/x", "fingerprint": "y"}}},
        {"num_failures": 1},
    ],
    ids=str,
)
def test_a_run_of_another_kind_has_no_turn(ledger: Ledger, changed: dict[str, Any]) -> None:
    """Nor has anybody behind it: it is next, in a process of its own."""
    ledger.write(Run.update(**changed).where(Run.id == 2))
    assert turns.next_turn(ledger, 1, time.time()) is None


def test_a_run_that_needs_the_one_at_its_end_is_next(ledger: Ledger) -> None:
    """What waited only for the run that ends now is not passed over."""
    from ftd.ledger.models import Dependency

    ledger.insert(Dependency, run=2, needs_run=1)
    assert turns.next_turn(ledger, 1, time.time()) == 2
    ledger.insert(Dependency, run=2, needs_run=3)
    assert turns.next_turn(ledger, 1, time.time()) == 3


def test_a_worker_keeps_its_device_from_turn_to_turn(ledger: Ledger) -> None:
    """One worker, one lease, two attempts; given back with the last of them."""
    from ftd.ledger.execution import Ending, end_attempt, live_attempts, start_attempt
    from ftd.ledger.models import Lease, Worker
    from ftd.states import Outcome

    (first,) = live_attempts(ledger)
    ending = Ending(Outcome.LOST, RunState.FAILED, None)
    end_attempt(ledger, first, ending, with_worker=False)
    second = start_attempt(ledger, 2, first.device, worker=first.worker_id)
    assert second is not None
    assert (second.worker_id, second.device) == (first.worker_id, "cpu:0")
    assert len(ledger.values(Lease.select(Lease.id))) == len(ledger.rows(Worker.select())) == 1
    end_attempt(ledger, second, ending)
    assert ledger.values(Lease.select(Lease.released_at))[0] is not None
    assert ledger.values(Worker.select(Worker.ended_at))[0] is not None
    assert len(ledger.values(Attempt.select(Attempt.id))) == 2
