"""Named fault points: places where a test lets a process die, exactly there, once.

Off (the environment names none) a point costs one comparison.  Armed, the process that reaches the
named point for the n-th time kills itself with SIGKILL, unless the mark file says that it has
happened already: the processes that come after it go on undisturbed.

    FTD_FAULT=seal.renamed:result.json  FTD_FAULT_MARK=/tmp/mark  ftd daemon --until-idle
"""

from __future__ import annotations

import os
import signal

ENQUEUE = ("enqueue.before_commit", "enqueue.after_commit")
DAEMON = (
    "pull.dequeued",  # the message is out of the queue, nothing is committed
    "pull.admitted",  # admitted as well, still not committed
    "pull.committed",
    "start.claimed",  # attempt, worker and lease are committed; no directory yet
    "start.ordered",  # the order is sealed; no process yet
    "start.spawned",  # the worker runs; who it is, is not recorded yet
    "start.recorded",
    "ingest.before_commit",
    "ingest.after_commit",
    "end.before_commit",
    "end.after_commit",
    "stop.requested",  # the stop file is there; not recorded, no signal sent
    "stop.recorded",
)
ADOPTION = ("adopt.found",)
WORKER = (
    "worker.started",  # before the run's lock
    "worker.locked",
    "seal.renamed:worker.json",
    "event.torn",  # half a line is written
    "folder.payload",  # of a checkpoint: a file is there, the others are not
    "folder.manifest",  # all files are there, the folder has not its name yet
    "folder.renamed",
    "checkpoint.pruning",  # the new one is durable, an older one is about to go
    "seal.written:result.json",  # aside, without its name
    "seal.renamed:result.json",
)
RESTORE = (  # in an attempt that is not the run's first
    "restore.found",  # the checkpoint is read and verified, nobody knows yet
    "restore.told",  # the step it goes on from is in the events
)
FORKING = (  # in the process that workers are forked from
    "fork.asked",
    "fork.forked",  # the worker is there, the daemon does not know
)
TURNS = (  # a worker is given its next attempt
    "turn.offered",  # in the worker: it has ended the one, nobody knows
    "turn.before_commit",
    "turn.claimed",  # the one has ended, the other is claimed; no directory yet
    "turn.ordered",
    "turn.given",
)
CREATION = ("create.migrated", "create.renamed")
POINTS = (*ENQUEUE, *DAEMON, *ADOPTION, *WORKER, *RESTORE, *FORKING, *TURNS, *CREATION)


class Trap:
    """The fault that the environment asks for, if any, and how often it was reached."""

    def __init__(self, wanted: str | None, mark: str | None) -> None:
        name, _, count = (wanted or "").partition("@")
        self.name = name
        self._left = int(count or 1)
        self._mark = mark

    def springs(self, name: str) -> bool:
        """Whether the process has to die at this point now."""
        if name != self.name:
            return False
        self._left -= 1
        return self._left == 0 and self._first()

    def _first(self) -> bool:
        if self._mark is None:
            return True
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True


_TRAP = Trap(os.environ.get("FTD_FAULT"), os.environ.get("FTD_FAULT_MARK"))


def point(name: str) -> None:
    """Die here if the environment says so."""
    if _TRAP.name and _TRAP.springs(name):
        die()


def springs(name: str) -> bool:
    """Whether to die here, for a caller that leaves something half done first."""
    return bool(_TRAP.name) and _TRAP.springs(name)


def die() -> None:
    """As SIGKILL from outside: no handler, no cleanup, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)
