"""Where a run can stand, how an attempt can end, and which moves between states exist."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands.  Wishes (cancel, hold) are not states; reasons for waiting neither."""

    QUEUED = "queued"
    RUNNING = "running"
    HELD = "held"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"  # the job raised
    REFUSED = "refused"  # bad params or data: trying again cannot help
    STOPPED = "stopped"  # asked to checkpoint and leave, and did
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    KILLED = "killed"  # we saw it die by a signal
    LOST = "lost"  # it is gone and nobody saw how


class Wish(StrEnum):
    """What a membership wants of its run."""

    RUN = "run"
    HOLD = "hold"
    CANCEL = "cancel"


# Flags of a run that tells its images apart no better than chance does.
AT_CHANCE = frozenset({"stuck", "near_chance"})

ENDED = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})

MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset(
        {RunState.RUNNING, RunState.HELD, RunState.CANCELLED, RunState.FAILED}
    ),
    RunState.RUNNING: frozenset(
        {RunState.DONE, RunState.FAILED, RunState.CANCELLED, RunState.QUEUED, RunState.HELD}
    ),
    RunState.HELD: frozenset({RunState.QUEUED, RunState.CANCELLED}),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.CANCELLED: frozenset({RunState.QUEUED}),
    RunState.DONE: frozenset(),
}


def wished_state(wishes: list[Wish]) -> RunState:
    """The state of a run that does not execute, from what its memberships wish.

    One that wants it run is enough; else one that holds it; else nobody wants it.
    """
    if Wish.RUN in wishes:
        return RunState.QUEUED
    return RunState.HELD if Wish.HOLD in wishes else RunState.CANCELLED
