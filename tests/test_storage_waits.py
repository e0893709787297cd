"""How long runs wait whose disk takes nothing, as it follows from their attempts alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftd.ledger import storage_waits
from ftd.ledger.db import Ledger
from ftd.ledger.execution import Ending, end_attempt, start_attempt
from ftd.ledger.models import Attempt
from ftd.ledger.storage_waits import FIRST_WAIT_S, LONGEST_WAIT_S, pause
from ftd.protocol import EXIT_STORAGE
from ftd.states import Outcome, RunState
from tests.ledgers import enqueue, new_ledger, plan

AT = 1.7e9  # some moment
WHY = "cannot write: No space left on device"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with the runs 1 to 3."""
    ledger = new_ledger(tmp_path)
    enqueue(ledger, plan(levels=(1, 2, 3), replicates=1))
    yield ledger
    ledger.close()


def _try_in_vain(ledger: Ledger, run: int, at: float, *, saved: int | None = None) -> None:
    """An attempt that leaves at `at`, because the disk took nothing more after step `saved`."""
    attempt = start_attempt(ledger, run, "cpu:0")
    assert attempt is not None
    ledger.write(Attempt.update(checkpoint_step=saved).where(Attempt.id == attempt.id))
    ending = Ending(
        Outcome.STOPPED, RunState.QUEUED, None, WHY, exit_status=EXIT_STORAGE, ended_at=at
    )
    end_attempt(ledger, attempt, ending)


def _run_wait_s(ledger: Ledger, run: int) -> float:
    return storage_waits.run_wait_s(ledger, run, progressed=False)


def test_a_run_waits_longer_after_each_try_in_vain(ledger: Ledger) -> None:
    """Twice as long each time, up to the longest; what other runs meet changes nothing."""
    for tries in range(12):
        expected_s = min(FIRST_WAIT_S * 2**tries, LONGEST_WAIT_S)
        assert _run_wait_s(ledger, 1) == expected_s
        assert _run_wait_s(ledger, 2) == FIRST_WAIT_S
        _try_in_vain(ledger, 1, AT + tries)


def test_a_run_that_got_further_waits_as_after_its_first_try(ledger: Ledger) -> None:
    """A checkpoint that was saved shows that the disk took something."""
    for number in range(3):
        _try_in_vain(ledger, 1, AT + number)
    assert storage_waits.run_wait_s(ledger, 1, progressed=True) == FIRST_WAIT_S
    _try_in_vain(ledger, 1, AT + 3, saved=5)
    assert _run_wait_s(ledger, 1) == FIRST_WAIT_S


def test_nobody_starts_while_different_runs_cannot_write(ledger: Ledger) -> None:
    """One alone may have met a bad place; several make all wait as long as who tried most often."""
    for number in range(3):
        _try_in_vain(ledger, 1, AT + number)
        assert pause(ledger, AT + number) is None
    _try_in_vain(ledger, 2, AT + 3)
    assert pause(ledger, AT + 3) == f"{WHY}; the next try is in 4 s"
    assert pause(ledger, AT + 6.5) == f"{WHY}; the next try is in 1 s"
    assert pause(ledger, AT + 7) is None


def test_a_run_that_gets_further_ends_the_pause(ledger: Ledger) -> None:
    """What counts is what was tried in vain since."""
    _try_in_vain(ledger, 1, AT)
    _try_in_vain(ledger, 2, AT)
    assert pause(ledger, AT) is not None
    _try_in_vain(ledger, 3, AT + 0.1, saved=5)
    assert pause(ledger, AT + 0.1) is None


def test_a_clock_that_is_set_back_prolongs_no_pause(ledger: Ledger) -> None:
    """Tries that seem to lie in the future keep nobody waiting."""
    _try_in_vain(ledger, 1, AT)
    _try_in_vain(ledger, 2, AT)
    assert pause(ledger, AT - 3600) is None
