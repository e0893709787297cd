"""Attempts that left because the disk took nothing more, and how long nobody starts for it.

The wait grows with every attempt in a row that left so without getting further.  It follows from
the attempts alone: another daemon does not shorten it, and ``ftd status`` sees the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import takewhile
from operator import itemgetter
from typing import Any

from ftd.ledger.db import Ledger
from ftd.ledger.models import Attempt
from ftd.protocol import EXIT_STORAGE
from ftd.states import Outcome

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
NEWEST = 64  # attempts that are looked at; fewer in a row make the longest wait


def run_wait_s(ledger: Ledger, run_id: int, *, progressed: bool) -> float:
    """Seconds until a run starts again whose attempt is about to be ended for the disk's sake.

    `progressed` says that this attempt saved something, so that it counts as the first.
    """
    return _wait_s(1 if progressed else len(_setbacks(ledger, run_id)) + 1)


def pause(ledger: Ledger, at: float) -> str | None:
    """Why nothing should start at `at` (UTC seconds), when different runs cannot write; else None.

    A single one may have met a bad place on the disk, which is no reason to keep others waiting.
    When several have, all wait as long as the one of them that tried most often.
    """
    setbacks = _setbacks(ledger)
    tries = Counter(row["run"] for row in setbacks)
    if len(tries) < 2:
        return None
    newest = setbacks[0]
    since_s = at - newest["ended_at"]
    left_s = _wait_s(max(tries.values())) - since_s
    if since_s < 0 or left_s <= 0:  # below 0: the clock was set back
        return None
    return f"{newest['error']}; the next try is in {math.ceil(left_s)} s"


def _setbacks(ledger: Ledger, run_id: int | None = None) -> list[Mapping[str, Any]]:
    """The attempts, of all runs or one, that left for the disk's sake since one got further.

    The one that ended last comes first.
    """
    query = (
        Attempt.select(
            Attempt.run, Attempt.outcome, Attempt.ended_at, Attempt.exit_status, Attempt.error,
            Attempt.checkpoint_step, Attempt.resumed_from_step,
        )
        .where(Attempt.outcome.is_null(False))
        .order_by(Attempt.id.desc())
        .limit(NEWEST)
    )  # fmt: skip
    if run_id is not None:
        query = query.where(Attempt.run == run_id)
    ended = sorted(ledger.rows(query), key=itemgetter("ended_at"), reverse=True)
    return list(takewhile(_is_setback, ended))


def _is_setback(row: Mapping[str, Any]) -> bool:
    saved = (row["checkpoint_step"] or 0) > (row["resumed_from_step"] or 0)
    left = row["outcome"] == Outcome.STOPPED and row["exit_status"] == EXIT_STORAGE
    return left and not saved


def _wait_s(setbacks: int) -> float:
    return float(min(FIRST_WAIT_S * 2 ** (setbacks - 1), LONGEST_WAIT_S))
