"""The nightly backup of the ledger, made beside the loop: a copy must not keep runs waiting."""

from __future__ import annotations

import sqlite3
from threading import Thread

from ftd.clock import monotonic, now
from ftd.config import Ledger as LedgerSettings
from ftd.daemon.log import Log
from ftd.errors import LedgerError
from ftd.layout import Home
from ftd.ledger import backups

LOOK_EVERY_S = 60.0
AFTER_FAILURE_S = 3600.0


class NightlyBackup:
    """Makes a backup whenever one is due, in a thread with a connection of its own."""

    def __init__(self, home: Home, settings: LedgerSettings, log: Log) -> None:
        self._home = home
        self._settings = settings
        self._log = log
        self._making: Thread | None = None
        self._look_at = 0.0  # monotonic

    def look(self) -> None:
        """Start a backup if it is time for one; returns at once."""
        if monotonic() < self._look_at or (self._making and self._making.is_alive()):
            return
        self._look_at = monotonic() + LOOK_EVERY_S
        every_h = self._settings.backup_every_h
        if every_h and backups.due(self._home, every_h * 3600, now()):
            # A daemon thread: leaving never waits for a copy, and half a copy is no backup.
            self._making = Thread(target=self._make, name="backup", daemon=True)
            self._making.start()

    def _make(self) -> None:
        try:
            made = backups.nightly(self._home, self._settings.backups_kept)
        except (LedgerError, OSError, sqlite3.Error) as error:
            self._look_at = monotonic() + AFTER_FAILURE_S
            self._log.error("no backup of the ledger could be made", error=str(error))
        else:
            self._log.info("backed up the ledger", file=made.name)
