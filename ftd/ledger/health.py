"""Whether a ledger is in order."""

from __future__ import annotations

from peewee import fn

from ftd.layout import Home
from ftd.ledger.db import Ledger, damaged, quick_check
from ftd.ledger.models import Event


def complaints(ledger: Ledger) -> list[str]:
    """What SQLite finds wrong with pages and references; empty when nothing is."""
    return damaged_pages(ledger) or broken_references(ledger)


def damaged_pages(ledger: Ledger) -> list[str]:
    """What SQLite's quick check finds wrong; empty when nothing is."""
    return quick_check(ledger.db.connection())  # type: ignore[no-untyped-call]


def broken_references(ledger: Ledger) -> list[str]:
    """One line for each row that points at a missing row."""
    connection = ledger.db.connection()  # type: ignore[no-untyped-call]
    return [
        f"a row of {row[0]} points at a missing row of {row[2]}"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]


def require_intact(home: Home, ledger: Ledger) -> None:
    """Raise LedgerError, saying how to restore it, when pages of the ledger are damaged."""
    wrong = damaged_pages(ledger)
    if wrong:
        raise damaged(home.ledger, "; ".join(wrong[:3]))


def newest_moment(ledger: Ledger) -> float | None:
    """When the ledger last recorded something (UTC epoch seconds), None when it never did."""
    moment: float | None = ledger.values(Event.select(fn.MAX(Event.at)))[0]
    return moment
