"""All checks of a home, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ftd.fsck import folders, processes, rows
from ftd.fsck.problem import Problem
from ftd.layout import Home
from ftd.ledger.db import Ledger

Check = Callable[[Home, Ledger], Iterator[Problem]]

CHECKS: tuple[Check, ...] = (
    rows.references,
    rows.executing,
    rows.attempts,
    rows.leases,
    rows.wishes,
    rows.results,
    rows.announcements,
    rows.places,
    processes.orphans,
    folders.artifacts,
    folders.checkpoints,
    folders.store,
    folders.leftovers,
    folders.unknown_runs,
)


def examine(home: Home, ledger: Ledger) -> Iterator[tuple[str, Problem]]:
    """(name of the check, what it found), for a ledger whose pages are intact.

    Nothing is changed; mending a problem before the next one is asked for is fine.
    """
    for check in CHECKS:
        for problem in list(check(home, ledger)):
            yield check.__name__.replace("_", " "), problem
