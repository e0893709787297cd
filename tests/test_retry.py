"""What follows from the end of an attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ftd.config import Retries
from ftd.daemon.retry import decide
from ftd.states import Outcome, RunState

TROUBLE = [Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.KILLED, Outcome.LOST]


def test_completed_is_done_and_refused_is_failed() -> None:
    """Neither is ever tried again."""
    for outcome, state in ((Outcome.COMPLETED, "done"), (Outcome.REFUSED, "failed")):
        decision = decide(outcome, num_failures=0, progressed=True, retries=Retries())
        assert decision.state == state


@given(st.sampled_from(TROUBLE), st.integers(0, 50))
def test_a_run_that_makes_no_progress_ends(outcome: Outcome, budget: int) -> None:
    """Without progress a run fails after exactly its budget of retries, waiting ever longer."""
    retries = Retries(failed=budget, out_of_memory=budget, killed=budget, lost=budget)
    failures, waits = 0, []
    while True:
        decision = decide(outcome, num_failures=failures, progressed=False, retries=retries)
        if decision.state == RunState.FAILED:
            break
        assert decision.state == RunState.QUEUED
        waits.append(decision.wait_s)
        failures = decision.num_failures
    assert len(waits) == budget
    assert waits == sorted(waits)
    assert max(waits, default=0.0) <= retries.backoff_max_s


@given(st.sampled_from(TROUBLE), st.integers(0, 1000))
def test_progress_gives_the_budget_back(outcome: Outcome, failures: int) -> None:
    """However often it was interrupted, a run that leaves newer checkpoints goes on."""
    decision = decide(outcome, num_failures=failures, progressed=True, retries=Retries())
    assert (decision.state, decision.num_failures) == (RunState.QUEUED, 1)


def test_being_killed_is_nobodys_fault() -> None:
    """The first retry after a kill or a reboot comes at once."""
    for outcome in (Outcome.KILLED, Outcome.LOST):
        assert decide(outcome, num_failures=0, progressed=False, retries=Retries()).wait_s == 0.0


def test_a_stopped_run_keeps_its_budget() -> None:
    """Being asked to leave is no failure."""
    decision = decide(Outcome.STOPPED, num_failures=3, progressed=False, retries=Retries())
    assert (decision.state, decision.num_failures, decision.wait_s) == (RunState.QUEUED, 3, 0.0)
