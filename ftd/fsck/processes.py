"""Checks of processes: workers at work that nobody follows."""

from __future__ import annotations

from collections.abc import Iterator

from ftd.daemon.workers import at_work
from ftd.fsck.problem import Problem
from ftd.layout import Home
from ftd.ledger import invariants
from ftd.ledger.db import Ledger
from ftd.process import alive


def orphans(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Workers that still run although the ledger has no live attempt of theirs."""
    workers = at_work(home)
    followed = invariants.live_numbers(ledger)  # asked later: what just began is in there
    for (run_id, attempt), identity in workers.items():
        if (run_id, attempt) not in followed and alive(identity):
            yield Problem(
                f"r{run_id}, attempt {attempt}",
                f"has ended, but its worker (pid {identity.pid}) still runs and holds its device",
                f"Let it end, or ask it to leave: kill {identity.pid}",
            )
