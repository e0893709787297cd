"""Following attempts: what happens when a worker, its directory or its lock are not as they were.

Any process will do as the worker here: it is known by its identity alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ftd.config import Config
from ftd.daemon.attempts import Attempts
from ftd.daemon.launch import LocalLauncher
from ftd.daemon.log import Log
from ftd.files import try_lock
from ftd.layout import Home
from ftd.ledger import details, execution, reads, wishes
from ftd.ledger.db import Ledger
from ftd.ledger.models import Attempt, Event, Membership, Worker
from ftd.process import Identity, age_s, identity_of
from ftd.protocol import EVENTS
from ftd.states import Outcome, Wish
from tests.ledgers import enqueue, new_ledger, plan


@dataclass
class Followed:
    """A ledger with a live attempt of r1, and of r2 if asked for, each with a process."""

    home: Home
    ledger: Ledger
    attempts: Attempts
    processes: dict[int, subprocess.Popen[bytes]]
    workers: dict[int, Identity] = field(default_factory=dict)

    def start(self, run: int) -> Path:
        """Begin an attempt of a run; its directory, which the run's worker would have made."""
        attempt = execution.start_attempt(self.ledger, run, f"cpu:{run}")
        assert attempt is not None
        process = subprocess.Popen(["sleep", "600"], start_new_session=True)
        self.processes[run] = process
        identity = identity_of(process.pid)
        assert identity is not None
        self.workers[run] = identity
        execution.record_spawn(self.ledger, attempt.worker_id, identity)
        directory = self.home.attempt(run, attempt.number)
        directory.mkdir(parents=True)
        return directory

    def kill(self, run: int) -> None:
        """SIGKILL the run's process and wait for its end."""
        self.processes[run].kill()
        self.processes[run].wait()

    def live(self) -> list[int]:
        """Look at everything once; the runs whose attempts go on."""
        return [attempt.run_id for attempt in self.attempts.follow()]


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    """A home with two runs and nobody at work."""
    home = Home(tmp_path / "home")
    ledger = new_ledger(tmp_path)
    enqueue(ledger, plan(levels=(1, 2), replicates=1))
    log = Log(home, json_lines=True)
    attempts = Attempts(home, ledger, Config(), LocalLauncher(), log)
    found = Followed(home, ledger, attempts, {})
    yield found
    for run in found.processes:
        found.kill(run)
    log.close()
    ledger.close()


def test_a_dead_worker_wakes_nobody_while_its_lock_is_held(followed: Followed) -> None:
    """When something that a dead worker left behind holds the lock, the daemon does not spin."""
    followed.start(1)
    lock = try_lock(followed.home.run_lock(1))
    assert lock is not None
    assert followed.live() == [1]
    assert len(followed.attempts.pidfds()) == 1
    followed.kill(1)
    assert followed.live() == [1]
    assert followed.attempts.pidfds() == []
    os.close(lock)
    assert followed.live() == []


def test_who_holds_the_lock_of_a_dead_worker_is_said_once(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history names the process whose end the run waits for."""
    monkeypatch.setattr("ftd.daemon.attempts.BLOCKED_SAID_S", 0.0)
    followed.start(1)
    lock = try_lock(followed.home.run_lock(1))
    assert lock is not None
    followed.kill(1)
    assert followed.live() == followed.live() == [1]
    (blocked,) = followed.ledger.rows(Event.select(Event.data).where(Event.kind == "blocked"))
    assert f"process {os.getpid()} holds" in blocked["data"]["why"]
    os.close(lock)


def test_nobody_computes_while_the_machine_is_off(followed: Followed) -> None:
    """An attempt that ended unseen took until its worker's last sign of life, not until now."""
    directory = followed.start(1)
    began = 1_000.0
    followed.ledger.write(Attempt.update(started_at=began))
    followed.ledger.write(Worker.update(boot_id="an earlier one"))
    (directory / EVENTS).touch()
    os.utime(directory / EVENTS, (began + 60, began + 60))
    assert _cost_s(followed) == pytest.approx(60)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("set_by_s", [3600, -3600])
def test_a_clock_that_was_set_adds_nothing_to_what_an_attempt_took(
    followed: Followed, watched: bool, set_by_s: int
) -> None:
    """It took no longer than its process is old, and as long as it was seen to run."""
    followed.start(1)
    time.sleep(0.3)
    if watched:
        assert followed.live() == [1]
    with_clock_as_it_was = Attempt.started_at - set_by_s
    followed.ledger.write(Attempt.update(started_at=with_clock_as_it_was))
    followed.kill(1)
    (followed.home.attempt(1, 1) / EVENTS).touch()
    age = age_s(followed.workers[1])
    assert (0.25 if watched or set_by_s > 0 else 0) <= _cost_s(followed) <= age + 5


def _cost_s(followed: Followed) -> float:
    """What the attempt of r1 took, which is found lost now."""
    assert followed.live() == []
    (attempt,) = details.run_details(followed.ledger, 1)["attempts"]
    assert attempt["outcome"] == Outcome.LOST
    (run,) = (row for row in reads.runs(followed.ledger) if row.id == 1)
    return run.cost_actual_s


@pytest.mark.parametrize("trouble", ["events", "directory"])
def test_one_attempt_in_trouble_does_not_keep_the_others_waiting(
    followed: Followed, trouble: str
) -> None:
    """Files of an attempt that cannot be read or written are that attempt's trouble alone."""
    first, second = followed.start(1), followed.start(2)
    if trouble == "events":
        (first / EVENTS).mkdir()
    else:
        first.rmdir()
        first.write_bytes(b"in the way")
    line = b'{"t": 1, "kind": "metric", "name": "val/a", "value": 1, "step": 1}\n'
    (second / EVENTS).write_bytes(line)
    members = followed.ledger.values(Membership.select(Membership.id))
    wishes.wish(followed.ledger, members, Wish.CANCEL, who="ann")
    assert followed.live() == [1, 2]
    assert len(details.metric_rows(followed.ledger, 2)) == 1
    assert followed.processes[2].wait(60) == -signal.SIGTERM
    assert 2 not in followed.live()
