"""Writes that fail while everything runs: the work waits, says why, and goes on by itself.

The disk is one that fails on demand (``tests/iofaults.py``), for the daemon and its workers alike.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftd.clock import now
from ftd.daemon.wake import wake
from ftd.files import locked
from ftd.ledger.db import opened
from ftd.ledger.details import run_details
from ftd.ledger.reads import counts
from ftd.ledger.storage_waits import FIRST_WAIT_S, pause
from ftd.process import send_signal
from ftd.states import RunState
from tests.homes import FTD, LiveHome, outcome_of, serving
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
replicates: {runs}
seed: 3
"""
BEGUN = r"/checkpoints/0*5$"  # what is renamed to this is the first checkpoint
WORDS = {errno.EIO: "Input/output error", errno.ENOSPC: "No space left on device"}
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
DAEMON_WRITES = {  # on which paths below the home, and why
    "the ledger's journal": (WRITES, r"/ledger\.sqlite-wal$", errno.ENOSPC),
    "the ledger's journal, durably": (SYNCS, r"/ledger\.sqlite-wal$", errno.EIO),
    "all of the ledger": (PUTS, r"/ledger\.sqlite", errno.EIO),
    "anything": (EVERYTHING, r"/(?!daemon\.out)", errno.EIO),  # which stands for a terminal
    "anything, being full": (PUTS, r"/(?!daemon\.out)", errno.ENOSPC),
    "anything, being read-only": (EVERYTHING, r"/(?!daemon\.out)", errno.EROFS),
}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What the spec gives when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home")
    home.enqueue(SPEC.format(runs=len(WORKERS_WRITE)))
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
    home = LiveHome(tmp_path / "home", slots=len(WORKERS_WRITE))
    home.launcher, home.descriptors = disk.launcher, disk.descriptors
    return home


def _fail_runs(
    home: LiveHome,
    disk: FailingDisk,
    places: Mapping[str, tuple[frozenset[str], str]],
    error: int,
    after: str | None = None,
) -> list[Rule]:
    """Let each run meet the error in a place of its own, `after` it made what has that name."""
    rules = []
    for number, (calls, path) in enumerate(places.values(), 1):
        within = rf"^{re.escape(str(home.home.run(number)))}(/.*)?"
        behind = None if after is None else within + after
        rules.append(disk.fail(error, calls, within + path, after=behind))
    return rules


def _done(home: LiveHome) -> int:
    """Number of runs that are done; the daemon does not sleep when it is asked."""
    wake(home.home.wake)
    with opened(home.home) as ledger:
        return counts(ledger)[RunState.DONE]


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


def _check(home: LiveHome, twin: Mapping[str, Any], *, lost: int = 0) -> None:
    """All is as if nothing had been, and every try in vain was followed by a longer pause.

    At most `lost` attempts of a run came to an end that nobody can tell.
    """
    found = outcome_of(home)
    assert found == {run: twin[run] for run in found}
    with opened(home.home) as ledger:
        for run in found:
            _check_attempts(run_details(ledger, int(run[1:]))["attempts"], lost)
    _check_pauses(home)


def _check_attempts(attempts: Sequence[Mapping[str, Any]], lost: int) -> None:
    outcomes = [attempt["outcome"] for attempt in attempts]
    assert outcomes[-1] == "completed"
    assert set(outcomes[:-1]) <= {"stopped", "lost"}
    assert outcomes.count("lost") <= lost
    in_a_row = 0
    for one, following in itertools.pairwise(attempts):
        in_a_row = 0 if one["checkpoint_step"] else in_a_row + 1
        if one["outcome"] == "stopped":
            paused_s = following["started_at"] - one["ended_at"]
            assert paused_s > 0.9 * FIRST_WAIT_S * 2 ** max(in_a_row - 1, 0)


def _check_pauses(home: LiveHome) -> None:
    """Nothing was started from when the daemon said that nothing starts until it took that back."""
    paused = False
    for line in home.home.daemon_log.read_text().splitlines():
        what = json.loads(line)["what"]
        assert not (paused and what in ("started", "called off"))
        if what in ("nothing starts for now", "runs start again"):
            paused = what == "nothing starts for now"


@pytest.mark.parametrize("error", WORDS, ids=errno.errorcode.get)
def test_a_disk_that_refuses_what_workers_write(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any], error: int
) -> None:
    """They leave, nothing starts for a while that grows, and all ends as if nothing had been."""
    home.enqueue(SPEC.format(runs=len(WORKERS_WRITE)))
    rules = _fail_runs(home, disk, WORKERS_WRITE, error, after=BEGUN)
    with serving(home):
        home.until(lambda: all(rule.hits for rule in rules), "all have met the failing disk")
        assert WORDS[error] in _until_paused(home)
        home.until(lambda: "nothing starts for now" in home.log(), "the daemon says so, too")
        for rule in rules:
            rule.lift()
        home.until(lambda: _done(home) == len(rules), "all runs are done")
    _check(home, twin)


def test_nothing_starts_in_the_look_that_finds_the_reason(
    tmp_path: Path, disk: FailingDisk
) -> None:
    """Two workers leave while the daemon looks away: the run that is next has to wait."""
    home = LiveHome(tmp_path / "home", slots=2, every_steps=100_000)
    home.launcher, home.descriptors = disk.launcher, disk.descriptors
    home.enqueue(SPEC.format(runs=3).replace("steps: 40", "steps: 100000"))
    with serving(home):
        home.until_step(1, "r1")
        home.until_step(1, "r2")
        home.freeze_daemon()
        names = {run: WORKERS_WRITE["a checkpoint's name"] for run in ("r1", "r2")}
        rules = _fail_runs(home, disk, names, errno.EIO)
        for worker in home.workers():
            send_signal(worker, signal.SIGTERM)  # it saves and leaves
        with locked(home.home.run_lock(1)), locked(home.home.run_lock(2)):
            home.until(lambda: not home.workers(), "both have met the failing disk and left")
        for rule in rules:
            rule.lift()
        home.thaw_daemon()
        home.until(lambda: home.log().count("  started  ") > 2, "something starts again")
    seen = [json.loads(line)["what"] for line in home.home.daemon_log.read_text().splitlines()]
    told = [what for what in seen if what not in ("serving", "admitted")]
    assert told[:6] == [
        *("started", "started", "ended", "ended", "nothing starts for now", "runs start again")
    ]


@pytest.mark.parametrize("error", WORDS, ids=errno.errorcode.get)
def test_a_disk_that_lets_no_attempt_begin(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any], error: int
) -> None:
    """No try counts, there are few of them, and it is said why."""
    home.enqueue(SPEC.format(runs=len(TO_BEGIN)))
    rules = _fail_runs(home, disk, TO_BEGIN, error)
    with serving(home):
        home.until(lambda: all(rule.hits for rule in rules), "all have met the failing disk")
        assert WORDS[error] in _until_paused(home)
        for rule in rules:
            rule.lift()
        home.until(lambda: _done(home) == len(rules), "all runs are done")
    _check(home, twin)


@pytest.mark.parametrize("what", DAEMON_WRITES)
def test_a_disk_that_refuses_what_the_daemon_writes(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any], what: str
) -> None:
    """It says so once, goes on trying, and takes in what happened meanwhile."""
    calls, path, error = DAEMON_WRITES[what]
    home.enqueue(SPEC.format(runs=2))
    rule = disk.fail(error, calls, rf"^{re.escape(str(home.root))}{path}", after=BEGUN)
    with serving(home) as daemon:
        home.until(lambda: "refuses" in home.log(), "the daemon says so")
        home.until(lambda: not home.workers(), "the workers have ended")
        seen = rule.hits
        home.until(lambda: wake(home.home.wake) or rule.hits > seen, "it tries again")
        rule.lift()
        home.until(lambda: _done(home) == 2, "both runs are done")
        assert daemon.poll() is None
    assert home.log().count("refuses; trying again") <= 3
    assert "cannot rollback" not in home.log(), "it is said what the disk did, not what followed"
    _check(home, twin, lost=1)


def test_commands_answer_while_the_home_they_look_at_is_read_only(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any]
) -> None:
    """A daemon serves it, so that it can be read; wishes are refused in one line."""

    def ftd(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*disk.launcher, *FTD, *arguments],
            pass_fds=disk.descriptors,
            input=SPEC.format(runs=3),
            capture_output=True,
            text=True,
            env={**os.environ, "FTD_HOME": str(home.root)},
        )

    home.enqueue(SPEC.format(runs=1))
    with serving(home):
        home.until_step(8)
        rule = disk.fail(errno.EROFS, EVERYTHING, rf"^{re.escape(str(home.root))}/(?!daemon\.out)")
        for verb in ("status", "runs", "show r1", "logs r1", "export failing", "fsck"):
            done = ftd(*verb.split())
            assert done.returncode == 0, done.stderr
            assert done.stdout or verb == "logs r1"
        for verb in ("cancel r1", "hold failing", "prioritise failing 3", "enqueue -", "daemon"):
            done = ftd(*verb.split())
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        rule.lift()
        home.until(lambda: _done(home) == 1, "it is done")
    _check(home, twin)


def test_a_lock_that_cannot_be_made_ends_no_attempt(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any]
) -> None:
    """Without its lock nobody can tell that a worker is gone for good: it is waited for."""
    home.enqueue(SPEC.format(runs=1))
    rule = disk.fail(errno.EIO, OPENS, r"/runs/r1/lock$")
    with serving(home):
        home.until(lambda: "the system refuses" in home.log(), "the daemon says so")
        assert home.states() == ["running"]
        rule.lift()
        home.until(lambda: _done(home) == 1, "it is done")
    _check(home, twin)


def test_a_request_to_leave_that_cannot_be_written_is_a_signal(
    home: LiveHome, disk: FailingDisk
) -> None:
    """A run that is held while the disk refuses the request saves and leaves all the same."""
    home.enqueue(SPEC.format(runs=1).replace("steps: 40", "steps: 100000"))
    with serving(home):
        home.until_step(8)
        rule = disk.fail(errno.EIO, PUTS, r"/\.stop\.json")
        assert home.ftd("hold", "failing").returncode == 0
        home.until_states("held")
    rule.lift()
    (attempt,) = home.json("show", "r1")["attempts"]
    assert attempt["outcome"] == "stopped", attempt["error"]
    assert attempt["checkpoint_step"] == attempt["step"] >= 8


def test_half_a_line_of_events_counts_for_nothing(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any]
) -> None:
    """A disk that fills up in the middle of a line: the next attempt writes it again, whole."""
    home.enqueue(SPEC.format(runs=1))
    rule = disk.fail(errno.ENOSPC, WRITES, r"/events\.jsonl$", torn=True, after=BEGUN)
    with serving(home):
        home.until(lambda: rule.hits >= 2, "the disk is full")
        rule.lift()
        home.until(lambda: _done(home) == 1, "it is done")
    assert not (home.home.attempt(1, 1) / "events.jsonl").read_bytes().endswith(b"\n")
    _check(home, twin)


def test_a_daemons_log_that_cannot_be_written_stops_nothing(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any]
) -> None:
    """The terminal has the lines, the runs go on, and the daemon leaves in order."""
    home.enqueue(SPEC.format(runs=1))
    rule = disk.fail(errno.ENOSPC, WRITES, r"/log/daemon\.jsonl$")
    assert home.finish() == 0
    rule.lift()
    assert "Traceback" not in home.log()
    _check(home, twin)


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


@pytest.mark.parametrize(
    "path",
    [r"/events\.jsonl$", r"/\.\d+\.\w+/state\.json$", r"/\.manifest\.json", r"/\.result\.json"],
    ids=["events", "payload", "manifest", "result"],
)
def test_a_sync_that_failed_once_costs_the_steps_since_the_checkpoint(
    home: LiveHome, disk: FailingDisk, twin: Mapping[str, Any], path: str
) -> None:
    """The worker leaves at once, and the next attempt starts from what was sealed before."""
    home.enqueue(SPEC.format(runs=1))
    rule = disk.fail(errno.EIO, SYNCS, path, only=1, after=BEGUN)
    with serving(home):
        home.until(lambda: _done(home) == 1, "it is done")
        rule.lift()
    first, second = home.json("show", "r1")["attempts"]
    assert (first["outcome"], first["exit_status"]) == ("stopped", 74)
    assert second["resumed_from_step"] == first["checkpoint_step"]
    _check(home, twin)
