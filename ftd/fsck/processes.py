"""Checks of processes: workers at work that nobody follows."""

from __future__ import annotations

from collections.abc import Iterator

from ftd.daemon.workers import at_work
from ftd.fsck.problem import Problem
from ftd.layout import Home
from ftd.ledger import execution
from ftd.ledger.db import Ledger
from ftd.process import alive


def orphans(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Workers that still run although the ledger has no live attempt of theirs."""
    workers = at_work(home)
    live = execution.live_attempts(ledger)  # asked later: what just began is in there
    followed = {(attempt.run_id, attempt.number) for attempt in live}
    in_turn = {attempt.identity for attempt in live}
    for (run_id, attempt), identity in workers.items():
        if (run_id, attempt) not in followed and identity not in in_turn and alive(identity):
            yield Problem(
                f"r{run_id}, attempt {attempt}",
                f"has ended, but its worker (pid {identity.pid}) still runs and holds its device",
                f"Let it end, or ask it to leave: kill {identity.pid}",
            )
