"""Experiments whose runs fail one after the other as soon as they start."""

from __future__ import annotations

from collections.abc import Sequence

from peewee import fn

from ftd.ledger.db import Ledger
from ftd.ledger.models import Attempt, Membership
from ftd.states import Outcome, Wish


def quick_failures(ledger: Ledger, run_id: int, last: int, quick_s: float) -> Sequence[int]:
    """Experiments of a run whose `last` newest attempts all failed within `quick_s` seconds.

    Only attempts since somebody last wished its runs to run (enqueue, release, retry) count.
    """
    tripped = []
    experiments = Membership.select(Membership.experiment).where(
        Membership.run == run_id, Membership.wish == Wish.RUN
    )
    for experiment in set(ledger.values(experiments)):
        last_wish = Membership.select(fn.MAX(Membership.wished_at)).where(
            Membership.experiment == experiment, Membership.wish == Wish.RUN
        )
        newest = ledger.rows(
            Attempt.select(Attempt.outcome, Attempt.started_at, Attempt.ended_at)
            .join(Membership, on=Membership.run == Attempt.run)
            .where(
                Membership.experiment == experiment,
                Attempt.ended_at > last_wish,
                Attempt.outcome.is_null(False),
            )
            .group_by(Attempt.id)
            .order_by(Attempt.ended_at.desc())
            .limit(last)
        )
        bad = (Outcome.FAILED, Outcome.REFUSED, Outcome.OUT_OF_MEMORY)
        if len(newest) == last and all(
            row["outcome"] in bad and row["ended_at"] - row["started_at"] < quick_s
            for row in newest
        ):
            tripped.append(experiment)
    return tripped
