"""What follows from the end of an attempt: done, failed, or another try and when."""

from __future__ import annotations

from dataclasses import dataclass

from ftd.config import Retries
from ftd.states import Outcome, RunState


@dataclass(frozen=True)
class Decision:
    """Where the run stands next; QUEUED means wherever its memberships wish."""

    state: RunState
    wait_s: float = 0.0
    num_failures: int = 0


def decide(outcome: Outcome, *, num_failures: int, progressed: bool, retries: Retries) -> Decision:
    """What to do after an attempt ended with `outcome`.

    `num_failures` counts earlier ones in a row without progress; `progressed` says that this one
    left a newer checkpoint, which gives the budget back.  Being killed or lost is nobody's fault:
    the first retry comes at once.
    """
    if outcome == Outcome.COMPLETED:
        return Decision(RunState.DONE)
    if outcome == Outcome.STOPPED:
        return Decision(RunState.QUEUED, num_failures=num_failures)
    failures = 1 if progressed else num_failures + 1
    if failures > retries.budget(outcome):
        return Decision(RunState.FAILED, num_failures=failures)
    doublings = failures - (2 if outcome in (Outcome.KILLED, Outcome.LOST) else 1)
    wait_s = (
        0.0 if doublings < 0 else min(retries.backoff_s * 2.0**doublings, retries.backoff_max_s)
    )
    return Decision(RunState.QUEUED, wait_s, failures)
