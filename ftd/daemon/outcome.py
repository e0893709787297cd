"""How an attempt ended: in its worker's own words, or by the way the worker died."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from ftd.daemon.evidence import Over
from ftd.daemon.memory import MemoryKills
from ftd.ledger.execution import LiveAttempt
from ftd.printable import printable
from ftd.process import signal_name
from ftd.protocol import CANNOT_WRITE, EXIT_FENCED, EXIT_STORAGE, Result
from ftd.regular import open_regular
from ftd.states import Outcome

CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)  # what native code does to itself: the job's own failure, unlike a signal from somebody


def told_outcome(
    attempt: LiveAttempt, over: Over, status: int | None, log: Path, memory_kills: MemoryKills
) -> tuple[Outcome, str | None]:
    """The outcome of an attempt that is over, and one line about it (None when it went well).

    `status` is its worker's exit status, a negative one the signal that ended it, None unknown;
    `memory_kills` is asked whether the kernel may have sent it.
    """
    if over.result is not None:
        return _in_its_words(attempt, over.result)
    if over.damaged:
        return Outcome.FAILED, f"its result or its events are damaged; see {log.parent}"
    if attempt.stop_requested_at is not None:
        late = "was stopped before it could save; the last checkpoint counts"
        return (Outcome.TIMED_OUT if attempt.stop_why == "time_limit" else Outcome.STOPPED), late
    if status is None or status == 0:
        return Outcome.LOST, "the worker is gone and left no result"
    if status == EXIT_STORAGE:
        return Outcome.STOPPED, f"{_what_could_not_be_written(log)} (the last checkpoint counts)"
    if status == EXIT_FENCED:
        return Outcome.LOST, "another process held the run"
    if -status in CRASHES:
        return Outcome.FAILED, f"the worker crashed ({signal_name(-status)}); see {log}"
    if status == -signal.SIGKILL and memory_kills.lately():
        return Outcome.OUT_OF_MEMORY, "memory was full, so the kernel ended the worker"
    if status < 0:
        return Outcome.KILLED, f"killed by {signal_name(-status)}"
    return Outcome.FAILED, f"the worker ended with status {status}; see {log}"


def _in_its_words(attempt: LiveAttempt, result: Result) -> tuple[Outcome, str | None]:
    if result.outcome == Outcome.STOPPED and result.why == "time_limit":
        return Outcome.TIMED_OUT, f"over its time limit of {attempt.time_limit_s:g} s"
    return result.outcome, result.error


def _what_could_not_be_written(log: Path) -> str:
    """The worker's words about a disk that failed it, if the log took them."""
    with suppress(OSError), open_regular(log) as stream:
        stream.seek(max(os.fstat(stream.fileno()).st_size - 4096, 0))
        for line in reversed(stream.read(4096).decode(errors="replace").splitlines()):
            if line.startswith(CANNOT_WRITE):
                return printable(line)
    return "the disk took nothing more"
