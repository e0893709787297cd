"""Runs that wait for data that is not there: one of them looks, and what it finds counts for all.

That a queued run waits for a folder or file is told by its error, whose words name it.
"""

from __future__ import annotations

from collections.abc import Mapping

from peewee import Expression

from ftd.ledger.db import Ledger
from ftd.ledger.models import Run
from ftd.printable import printable
from ftd.states import RunState

_BEGINNING = "its data: "


def words(missing: str) -> str:
    """What is said of a run whose input at `missing` is not there."""
    return f"{_BEGINNING}{printable(missing)} is not there (is it mounted?)"


def is_wait(error: str | None) -> bool:
    """Whether a run with this error waits for data."""
    return error is not None and error.startswith(_BEGINNING)


def not_looked_for() -> Expression:
    """Condition on queued runs: no run that executes looks for the data that they wait for.

    More could not see more, and a dead file server would hang them all.
    """
    looking = Run.alias()
    looked_for = looking.select(looking.error).where(
        looking.state == RunState.RUNNING, looking.error.startswith(_BEGINNING)
    )
    return Run.error.is_null() | Run.error.not_in(looked_for)


def wait_for(ledger: Ledger, missing: str, not_before: float) -> None:
    """Let every queued run that reads what is at `missing` wait until `not_before`."""
    queued = Run.state == RunState.QUEUED
    for inputs in ledger.values(Run.select(Run.inputs).where(queued).distinct()):
        if missing in places(inputs):
            ledger.write(
                Run.update(not_before=not_before, error=words(missing)).where(
                    queued, Run.inputs == inputs
                )
            )


def look_now(ledger: Ledger) -> list[str]:
    """Let all runs that wait for data look again at once; what is said of them, each words once."""
    waiting = Run.state == RunState.QUEUED, Run.error.startswith(_BEGINNING)
    with ledger.transaction():
        found = ledger.values(Run.select(Run.error).where(*waiting).distinct())
        if found:
            ledger.write(Run.update(not_before=None).where(*waiting))
    return found


def go_on(ledger: Ledger, error: str) -> None:
    """End the wait of all runs of which this `error` is said."""
    waiting = (RunState.QUEUED, RunState.HELD, RunState.RUNNING)
    with ledger.transaction():
        ledger.write(
            Run.update(not_before=None, error=None).where(
                Run.state.in_(waiting), Run.error == error
            )
        )


def inputs_of(ledger: Ledger, run_id: int) -> set[str]:
    """Where a run's inputs should be."""
    return places(ledger.values(Run.select(Run.inputs).where(Run.id == run_id))[0])


def places(inputs: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Where these inputs should be."""
    return {planned["where"] for planned in inputs.values()}
