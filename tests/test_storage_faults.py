"""Writes that fail while everything runs: the work waits, says why, and goes on by itself.

The disk is one that fails on demand (``tests/iofaults.py``), for the daemon and its workers alike.
Of two runs the one meets a failing disk (EIO) and the other a full one (ENOSPC).
"""

from __future__ import annotations

import errno
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftd.clock import now
from ftd.daemon.wake import wake
from ftd.ledger.db import opened
from ftd.ledger.reads import counts
from ftd.ledger.storage_waits import FIRST_WAIT_S, pause
from ftd.states import RunState
from tests.homes import LiveHome, outcome_of, serving
from tests.iofaults import (
    EVERYTHING,
    OPENS,
    RENAMES,
    SYNCS,
    WRITES,
    FailingDisk,
    Rule,
    failing_disk,
    why_impossible,
)

SPEC = """
experiment: failing
job: drill
steps: 40
step_s: 0.02
replicates: 2
seed: 3
"""
PUTS = WRITES | SYNCS | OPENS
WORKERS_WRITE = {  # what: the calls that fail, and on which paths below the run's folder
    "a checkpoint's payload": (PUTS, r"/checkpoints/\.\d+\.\w+/state\.json$"),
    "a checkpoint's manifest": (PUTS, r"/checkpoints/\.\d+\.\w+/\.manifest\.json"),
    "a checkpoint's name": (RENAMES, r"/checkpoints/\d+$"),
    "a checkpoint's folder": (SYNCS, r"/checkpoints$"),
    "events": (WRITES, r"/events\.jsonl$"),
    "events, durably": (SYNCS, r"/events\.jsonl$"),
    "an artifact": (PUTS, r"/artifacts/"),
    "the result": (PUTS, r"/\.result\.json"),
    "the result's name": (RENAMES, r"/result\.json$"),
}
TO_BEGIN = {
    "an attempt's folder": (EVERYTHING, r"/attempts/\d+$"),
    "an order": (PUTS, r"/\.order\.json"),
    "an order's name": (RENAMES, r"/order\.json$"),
    "a log": (OPENS, r"/log\.txt$"),
    "who a worker is": (PUTS, r"/\.worker\.json"),
    "the first event": (OPENS, r"/events\.jsonl$"),
}
DAEMON_WRITES = {  # on which paths below the home
    "the ledger's journal": (WRITES, r"/ledger\.sqlite-wal$"),
    "the ledger's journal, durably": (SYNCS, r"/ledger\.sqlite-wal$"),
    "all of the ledger": (PUTS, r"/ledger\.sqlite"),
    "everything": (EVERYTHING, r"/(?!daemon\.out)"),  # which stands for a terminal
}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the spec gives when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home")
    home.enqueue(SPEC)
    assert home.finish() == 0
    return outcome_of(home)


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    """A disk that can be made to fail."""
    why = why_impossible()
    if why:
        pytest.skip(why)
    with failing_disk() as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, disk: FailingDisk) -> LiveHome:
    """A home whose daemon and workers write to that disk."""
    home = LiveHome(tmp_path / "home")
    home.launcher, home.descriptors = disk.launcher, disk.descriptors
    return home


def _fail_runs(
    home: LiveHome, disk: FailingDisk, what: tuple[frozenset[str], str]
) -> tuple[Rule, Rule]:
    """Let r1 meet EIO and r2 ENOSPC."""
    calls, path = what
    return (
        disk.fail(errno.EIO, calls, rf"^{re.escape(str(home.home.run(1)))}(/.*)?{path}"),
        disk.fail(errno.ENOSPC, calls, rf"^{re.escape(str(home.home.run(2)))}(/.*)?{path}"),
    )


def _until_paused(home: LiveHome) -> str:
    """Wait until nothing starts for the disk's sake; why, as ``ftd status`` says it."""

    def said() -> str | None:
        wake(home.home.wake)
        with opened(home.home) as ledger:
            paused = pause(ledger, now())
        found: str | None = home.json("status")["short_of_space"] if paused else None
        return found

    found: str = home.until(said, "it is said that nothing starts, and why")
    return found


def _until_done(home: LiveHome) -> None:
    """Wait for both runs, with a daemon that does not sleep meanwhile."""

    def done() -> bool:
        wake(home.home.wake)
        with opened(home.home) as ledger:
            return counts(ledger)[RunState.DONE] == 2

    home.until(done, "both runs are done")


def _check_attempts(home: LiveHome) -> None:
    """Nothing counted as a failure, and every try in vain was followed by a longer pause."""
    for run in home.runs():
        attempts = home.json("show", run["id"])["attempts"]
        outcomes = [attempt["outcome"] for attempt in attempts]
        assert outcomes[-1] == "completed"
        assert set(outcomes[:-1]) <= {"stopped", "lost"}
        assert outcomes.count("lost") <= 1
        in_a_row = 0
        for one, following in itertools.pairwise(attempts):
            in_a_row = 0 if one["checkpoint_step"] else in_a_row + 1
            if one["outcome"] == "stopped":
                paused_s = following["started_at"] - one["ended_at"]
                assert paused_s > 0.9 * FIRST_WAIT_S * 2 ** max(in_a_row - 1, 0)


@pytest.mark.parametrize("what", WORKERS_WRITE)
def test_a_disk_that_refuses_what_workers_write(
    home: LiveHome, disk: FailingDisk, twin: object, what: str
) -> None:
    """They leave, nothing starts for a while that grows, and all ends as if nothing had been."""
    home.enqueue(SPEC)
    with serving(home):
        home.until_step(8, "r1")
        home.until_step(8, "r2")
        rules = _fail_runs(home, disk, WORKERS_WRITE[what])
        said = _until_paused(home)
        assert "Input/output error" in said or "No space left" in said
        assert "nothing starts for now" in home.log()
        for rule in rules:
            rule.lift()
        _until_done(home)
    assert outcome_of(home) == twin
    _check_attempts(home)


@pytest.mark.parametrize("what", TO_BEGIN)
def test_a_disk_that_lets_no_attempt_begin(
    home: LiveHome, disk: FailingDisk, twin: object, what: str
) -> None:
    """No try counts, there are few of them, and it is said why."""
    home.enqueue(SPEC)
    rules = _fail_runs(home, disk, TO_BEGIN[what])
    with serving(home):
        said = _until_paused(home)
        assert "Input/output error" in said or "No space left" in said
        for rule in rules:
            rule.lift()
        _until_done(home)
    assert outcome_of(home) == twin
    _check_attempts(home)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("what", DAEMON_WRITES)
def test_a_disk_that_refuses_what_the_daemon_writes(
    home: LiveHome, disk: FailingDisk, twin: object, what: str, error: int
) -> None:
    """It says so once, goes on trying, and takes in what happened meanwhile."""
    calls, path = DAEMON_WRITES[what]
    home.enqueue(SPEC)
    with serving(home) as daemon:
        home.until_step(8)
        rule = disk.fail(error, calls, rf"^{re.escape(str(home.root))}{path}")
        home.until(lambda: "refuses; trying again" in home.log(), "the daemon says so")
        home.until(lambda: not home.workers(), "the workers have ended")
        seen = rule.hits
        home.until(lambda: wake(home.home.wake) or rule.hits > seen, "it tries again")
        rule.lift()
        _until_done(home)
        assert daemon.poll() is None
    assert home.log().count("refuses; trying again") <= 3
    assert outcome_of(home) == twin
    _check_attempts(home)


def test_a_lock_that_cannot_be_made_ends_no_attempt(
    home: LiveHome, disk: FailingDisk, twin: object
) -> None:
    """Without its lock nobody can tell that a worker is gone for good: it is waited for."""
    home.enqueue(SPEC)
    rules = _fail_runs(home, disk, (OPENS, r"lock$"))
    with serving(home):
        home.until(lambda: home.log().count("the system refuses") == 2, "the daemon says so")
        assert home.states() == ["running", "running"]
        for rule in rules:
            rule.lift()
        _until_done(home)
    assert outcome_of(home) == twin
    _check_attempts(home)


def test_half_a_line_of_events_counts_for_nothing(
    home: LiveHome, disk: FailingDisk, twin: object
) -> None:
    """A disk that fills up in the middle of a line: the next attempt writes it again, whole."""
    home.enqueue(SPEC)
    with serving(home):
        home.until_step(8, "r1")
        rule = disk.fail(errno.ENOSPC, WRITES, r"/r1/.*/events\.jsonl$", torn=True)
        home.until(lambda: rule.hits >= 2, "the disk is full")
        rule.lift()
        _until_done(home)
    assert not (home.home.attempt(1, 1) / "events.jsonl").read_bytes().endswith(b"\n")
    assert outcome_of(home) == twin
    _check_attempts(home)


def test_a_daemons_log_that_cannot_be_written_stops_nothing(
    home: LiveHome, disk: FailingDisk, twin: object
) -> None:
    """The terminal has the lines, the runs go on, and the daemon leaves in order."""
    home.enqueue(SPEC)
    rule = disk.fail(errno.ENOSPC, WRITES, r"/log/daemon\.jsonl$")
    assert home.finish() == 0
    rule.lift()
    assert "Traceback" not in home.log()
    assert outcome_of(home) == twin


SYNC_TWICE = """
import sys
from pathlib import Path
from typing import Any
from ftd.files import Stream
stream = Stream(Path(sys.argv[1]))
stream.append({"line": 1})
for act in (stream.sync, stream.sync, lambda: stream.append({"line": 2})):
    try:
        act()
        print("done")
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_a_stream_whose_sync_failed_is_never_trusted_again(
    tmp_path: Path, disk: FailingDisk
) -> None:
    """What could not be written may be forgotten: a later fsync would succeed falsely."""
    stream = tmp_path / "events.jsonl"
    rule = disk.fail(errno.EIO, SYNCS, r"/events\.jsonl$", only=1)
    done = subprocess.run(
        [*disk.launcher, sys.executable, "-P", "-c", SYNC_TWICE, str(stream)],
        pass_fds=disk.descriptors,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [f"{errno.EIO} {stream}"] * 3, done.stderr
    assert rule.seen == 1, "the kernel was not asked again"


def test_a_sync_that_failed_once_costs_the_steps_since_the_checkpoint(
    home: LiveHome, disk: FailingDisk, twin: object
) -> None:
    """The worker leaves at once, and the next attempt starts from what was sealed before."""
    home.enqueue(SPEC)
    with serving(home):
        home.until_step(8, "r1")
        rule = disk.fail(errno.EIO, SYNCS, r"/r1/.*/events\.jsonl$", only=1)
        _until_done(home)
        rule.lift()
    first, second = home.json("show", "r1")["attempts"]
    assert (first["outcome"], first["exit_status"]) == ("stopped", 74)
    assert second["resumed_from_step"] == first["checkpoint_step"]
    assert outcome_of(home) == twin
