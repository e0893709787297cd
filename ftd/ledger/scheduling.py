"""Which queued runs could start, and which of them wait for what only a person can do."""

from __future__ import annotations

from collections.abc import Sequence

from peewee import fn

from ftd.ledger import data_waits
from ftd.ledger.db import Ledger
from ftd.ledger.models import Dependency, Experiment, Membership, Run
from ftd.states import RunState, Wish


def eligible_runs(
    ledger: Ledger, device_kind: str, at: float, limit: int, *, done: int = 0
) -> list[int]:
    """Queued runs that could start at time `at`, by priority and age, at most `limit`.

    Wanted by an admitted experiment, past their wait, and with all they need done, as the run
    `done` is about to be.  Of those that wait for the same data it is one at a time: it looks for
    the others too.
    """
    wanting = (
        Membership.select(Membership.id)
        .join(Experiment)
        .where(
            Membership.run == Run.id,
            Membership.wish == Wish.RUN,
            Experiment.admitted_at.is_null(False),
        )
    )
    needed = Run.alias()
    unmet = (
        Dependency.select(Dependency.run)
        .join(needed, on=needed.id == Dependency.needs_run)
        .where(Dependency.run == Run.id, needed.state != RunState.DONE, needed.id != done)
    )
    query = (
        Run.select(Run.id, Run.error)
        .where(
            Run.state == RunState.QUEUED,
            Run.device_kind == device_kind,
            Run.not_before.is_null() | (Run.not_before <= at),
            data_waits.not_looked_for(),
            fn.EXISTS(wanting),
            ~fn.EXISTS(unmet),
        )
        .order_by(Run.priority.desc(), Run.id)
        .limit(limit)
    )
    chosen: list[int] = []
    looked_for: set[str] = set()
    for row in ledger.rows(query):
        if row["error"] not in looked_for:
            chosen.append(row["id"])
            if data_waits.is_wait(row["error"]):
                looked_for.add(row["error"])
    return chosen


def end_long_waits(ledger: Ledger, at: float, longest_s: float) -> int:
    """End waits that last more than `longest_s` from `at`: the clock was set back since.

    The number of runs that do not wait any longer.
    """
    with ledger.transaction():
        return ledger.write(
            Run.update(not_before=None).where(
                Run.state.in_((RunState.QUEUED, RunState.HELD)), Run.not_before > at + longest_s
            )
        )


def num_hopeful(ledger: Ledger, device_kinds: Sequence[str]) -> int:
    """Number of queued runs that will get their turn without a person doing anything.

    Not those that need a run nobody will finish, nor a kind of device that is not offered.
    """
    needed = Run.alias()
    hopeless = (
        Dependency.select(Dependency.run)
        .join(needed, on=needed.id == Dependency.needs_run)
        .where(
            Dependency.run == Run.id,
            needed.state.in_((RunState.HELD, RunState.CANCELLED, RunState.FAILED)),
        )
    )
    query = Run.select(fn.COUNT(Run.id)).where(
        Run.state == RunState.QUEUED,
        Run.device_kind.in_(list(device_kinds)),
        ~fn.EXISTS(hopeless),
    )
    return int(ledger.values(query)[0])
