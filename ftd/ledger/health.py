"""Whether a ledger is in order."""

from __future__ import annotations

from peewee import fn

from ftd.ledger.db import Ledger
from ftd.ledger.models import Event


def complaints(ledger: Ledger) -> list[str]:
    """What SQLite's quick check finds wrong; empty when nothing is."""
    connection = ledger.db.connection()  # type: ignore[no-untyped-call]
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check")]
    found += [
        f"a row of {row[0]} points at a missing row of {row[2]}"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]
    return [text for text in found if text != "ok"]


def newest_moment(ledger: Ledger) -> float | None:
    """When the ledger last recorded something (UTC epoch seconds), None when it never did."""
    moment: float | None = ledger.values(Event.select(fn.MAX(Event.at)))[0]
    return moment
