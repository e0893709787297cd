"""What follows from the end of an attempt: done, failed, or another try and when."""

from __future__ import annotations

from dataclasses import dataclass

from ftd.config import Retries
from ftd.ledger import storage_waits
from ftd.states import Outcome, RunState

DATA_WAIT_S = 5.0  # what is mounted at boot, or mounted again, is mostly there within seconds
DATA_WAIT_MAX_S = 300.0  # a look is cheap, but a night of them should not fill the history


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


def data_wait_s(looks: int) -> float:
    """Seconds from the last of `looks` in vain, one after the other, for data to the next."""
    return float(min(DATA_WAIT_S * 2 ** min(looks - 1, 30), DATA_WAIT_MAX_S))


def longest_wait_s(retries: Retries) -> float:
    """No run is made to wait longer, whatever it waits for; more means a clock that was set."""
    return max(retries.backoff_max_s, DATA_WAIT_MAX_S, storage_waits.LONGEST_WAIT_S)
