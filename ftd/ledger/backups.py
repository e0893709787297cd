"""Nightly backups of the ledger: when one is due, and which are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ftd.layout import Home
from ftd.ledger.db import backup

NIGHTLY = "nightly"


def nightly(home: Home, kept: int) -> Path:
    """Make a nightly backup, then drop all but the newest `kept` of them.

    Those made before an upgrade are never dropped.  Raises what :func:`ftd.ledger.db.backup` does.
    """
    for unfinished in home.backups.glob("*.part*"):  # a daemon was killed at it
        unfinished.unlink(missing_ok=True)
    made = backup(home, NIGHTLY)
    names = sorted(
        home.backups.glob(f"ledger-*-{NIGHTLY}.sqlite"),
        # Their names begin with UTC.  What seems to come from the future is older than it says: it
        # must not push out the one just made.
        key=lambda path: (path.name <= made.name, path.name),
    )
    for old in names[:-kept]:
        old.unlink(missing_ok=True)
    return made


def due(home: Home, every_s: float, at: float) -> bool:
    """Whether the newest backup, or else the ledger itself, is older than `every_s` seconds.

    `at`: UTC epoch seconds.  What seems to come from the future (a clock was wrong) does not count.
    """
    return all(moment > at or at - moment > every_s for moment in _moments(home))


def _moments(home: Home) -> Iterator[float]:
    # The lock file was made with the ledger, and its time of change never moves.
    for path in (home.ledger_lock, *home.backups.glob("ledger-*.sqlite")):
        if path.exists():
            yield path.stat().st_mtime
