"""What people wish of runs: run, hold, cancel, retry, prioritise.

A wish lives on memberships.  The state of a run that is not executing follows from the wishes of
all its memberships; a run that executes is left to the daemon, which asks its worker to stop.
"""

from __future__ import annotations

from collections.abc import Sequence

from peewee import Case, ModelSelect, fn

from ftd.clock import now
from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Event, Experiment, Membership, Run
from ftd.states import RunState, Wish


def wish(
    ledger: Ledger, memberships: Sequence[int], wanted: Wish, *, who: str, why: str = ""
) -> list[int]:
    """Set the wish of memberships (by id) and settle their runs; the ids of the runs touched.

    Runs that have ended stay as they are; see :func:`retry`.
    """
    with ledger.transaction():
        runs: set[int] = set()
        for ids in chunks(memberships):
            ledger.write(
                Membership.update(
                    wish=wanted, wished_by=who, wished_at=now(), wished_why=why
                ).where(Membership.id.in_(ids))
            )
            runs.update(
                ledger.values(Membership.select(Membership.run).where(Membership.id.in_(ids)))
            )
        settle(ledger, sorted(runs))
        _record(ledger, f"wish {wanted}", memberships, who, why)
    return sorted(runs)


def retry(ledger: Ledger, memberships: Sequence[int], *, who: str, why: str = "") -> list[int]:
    """Queue failed, cancelled and held runs of these memberships again; the ids of those queued.

    A retried run goes on from its last good checkpoint and has its retry budget back.  One that
    still executes because a cancel or hold is not yet carried out is wanted again.
    """
    with ledger.transaction():
        runs: set[int] = set()
        again = (RunState.FAILED, RunState.CANCELLED, RunState.HELD)
        leaving = (Run.state == RunState.RUNNING) & (Membership.wish != Wish.RUN)
        for ids in chunks(memberships):
            members = (
                Membership.select(Membership.id, Membership.run)
                .join(Run)
                .where(Membership.id.in_(ids), Run.state.in_(again) | leaving)
            )
            found = ledger.rows(members)
            runs.update(row["run"] for row in found)
            ledger.write(
                Membership.update(
                    wish=Wish.RUN, wished_by=who, wished_at=now(), wished_why=why or "retry"
                ).where(Membership.id.in_([row["id"] for row in found]))
            )
        requeue(ledger, sorted(runs))
        _record(ledger, "retry", memberships, who, why)
    return sorted(runs)


def release(ledger: Ledger, memberships: Sequence[int], *, who: str, why: str = "") -> list[int]:
    """Let held memberships run again (cancelled ones stay cancelled); the ids of their runs."""
    with ledger.transaction():
        held: list[int] = []
        for ids in chunks(memberships):
            chosen = Membership.id.in_(ids), Membership.wish == Wish.HOLD
            held += ledger.values(Membership.select(Membership.id).where(*chosen))
        return wish(ledger, held, Wish.RUN, who=who, why=why or "release")


def prioritise(ledger: Ledger, memberships: Sequence[int], priority: int, *, who: str) -> list[int]:
    """Give memberships a priority; the ids of their runs.

    Higher ones run first; a run counts the highest that wants it.
    """
    runs: set[int] = set()
    with ledger.transaction():
        for ids in chunks(memberships):
            chosen = Membership.id.in_(ids)
            ledger.write(Membership.update(priority=priority).where(chosen))
            runs.update(ledger.values(Membership.select(Membership.run).where(chosen)))
        settle(ledger, sorted(runs))
        _record(ledger, f"priority {priority}", memberships, who, "")
    return sorted(runs)


def hold_queued(ledger: Ledger, experiment: int, *, who: str, why: str) -> list[int]:
    """Hold an experiment's queued runs; the ids of those.  What executes already may end well."""
    with ledger.transaction():
        members = ledger.values(
            Membership.select(Membership.id)
            .join(Run)
            .where(
                Membership.experiment == experiment,
                Membership.wish == Wish.RUN,
                Run.state == RunState.QUEUED,
            )
        )
        return wish(ledger, members, Wish.HOLD, who=who, why=why)


def settle(ledger: Ledger, runs: Sequence[int]) -> None:
    """Make the state of runs that are queued or held follow the wishes of their memberships."""
    for ids in chunks(runs):
        waiting = Run.state.in_((RunState.QUEUED, RunState.HELD))
        ledger.write(
            Run.update(state=_wished_state(), priority=_wished_priority()).where(
                Run.id.in_(ids), waiting
            )
        )
        ledger.write(
            Run.update(ended_at=now()).where(
                Run.id.in_(ids), Run.state == RunState.CANCELLED, Run.ended_at.is_null()
            )
        )


def requeue(ledger: Ledger, runs: Sequence[int]) -> None:
    """Let failed, cancelled and held runs stand where they are wished, with a fresh budget."""
    back = (RunState.FAILED, RunState.CANCELLED, RunState.HELD, RunState.QUEUED)
    for ids in chunks(runs):
        ledger.write(
            Run.update(
                state=_wished_state(),
                priority=_wished_priority(),
                not_before=None,
                num_failures=0,
                error=None,
                ended_at=None,
            ).where(Run.id.in_(ids), Run.state.in_(back))
        )


def wished_state_and_priority() -> tuple[Case, ModelSelect[Membership]]:
    """SQL for where a run that does not execute is wished, and for the priority it then has."""
    return _wished_state(), _wished_priority()


def _wished_state() -> Case:
    """`ftd.states.wished_state` as SQL, for whole sets of runs at once."""
    wishes = Membership.select(fn.COUNT(Membership.id)).where(Membership.run == Run.id)
    return Case(
        None,
        (
            (wishes.where(Membership.wish == Wish.RUN) > 0, RunState.QUEUED),
            (wishes.where(Membership.wish == Wish.HOLD) > 0, RunState.HELD),
        ),
        RunState.CANCELLED,
    )


def _wished_priority() -> ModelSelect[Membership]:
    wanting = Membership.select(fn.COALESCE(fn.MAX(Membership.priority), 0))
    return wanting.where(Membership.run == Run.id, Membership.wish == Wish.RUN)


def _record(ledger: Ledger, kind: str, memberships: Sequence[int], who: str, why: str) -> None:
    for ids in chunks(memberships):
        experiments = (
            Membership.select(Membership.experiment, fn.COUNT(Membership.id).alias("runs"))
            .where(Membership.id.in_(ids))
            .group_by(Membership.experiment)
        )
        for row in ledger.rows(experiments):
            data = {"runs": row["runs"], "why": why}
            ledger.insert(
                Event, at=now(), kind=kind, who=who, experiment=row["experiment"], data=data
            )


def admit(ledger: Ledger, experiment: int) -> None:
    """Let an experiment's runs be scheduled; harmless when it already is."""
    ledger.write(
        Experiment.update(admitted_at=now()).where(
            Experiment.id == experiment, Experiment.admitted_at.is_null()
        )
    )
