"""Attempts that the ledger does not know, because it was restored from an older backup.

Their checkpoints are newer than what the ledger knows of the run, so a run that went on from one
would lack the metrics that only the unknown attempt reported.  They are set aside, and the run goes
on from what the ledger knows.
"""

from __future__ import annotations

import os
from pathlib import Path

from ftd.files import set_aside, try_lock
from ftd.layout import Home
from ftd.ledger import execution
from ftd.ledger.db import Ledger
from ftd.ledger.execution import LiveAttempt


def set_aside_unknown(home: Home, ledger: Ledger, attempt: LiveAttempt) -> list[Path] | None:
    """Rename the folders of attempts of `attempt`'s run that the ledger lacks; their new names.

    None when they have to stay, because a worker of one of them is still at work.
    """
    known = execution.attempt_numbers(ledger, attempt.run_id)
    unknown = sorted(set(home.attempts(attempt.run_id)) - known)
    if not unknown:
        return []
    lock = try_lock(home.run_lock(attempt.run_id))
    if lock is None:
        return None
    try:
        return [set_aside(home.attempt(attempt.run_id, number), "unknown") for number in unknown]
    finally:
        os.close(lock)
