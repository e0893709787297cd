"""The daemon's log: lines for people or JSON on stderr, JSON in the home, rotated."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from contextlib import suppress
from typing import Any

from ftd.layout import Home
from ftd.printable import printable

FILE_BYTES = 5_000_000


class Log:
    """Facts with fields: ``log.info("started", run="r3", device="cpu:0")``."""

    def __init__(self, home: Home, *, json_lines: bool) -> None:
        home.daemon_log.parent.mkdir(parents=True, exist_ok=True)
        self._logger = logging.Logger("ftd.daemon", logging.INFO)
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(_JSONLine() if json_lines else _Readable())
        file = _File(home.daemon_log, maxBytes=FILE_BYTES, backupCount=3)
        file.setFormatter(_JSONLine())
        self._logger.addHandler(screen)
        self._logger.addHandler(file)

    def info(self, what: str, **fields: Any) -> None:
        """Something happened as it should."""
        self._logger.info(what, extra={"fields": fields})

    def warning(self, what: str, **fields: Any) -> None:
        """Something needs a look, or was put right."""
        self._logger.warning(what, extra={"fields": fields})

    def error(self, what: str, *, exc_info: bool = False, **fields: Any) -> None:
        """Something went wrong; with `exc_info` the traceback is kept."""
        self._logger.error(what, exc_info=exc_info, extra={"fields": fields})

    def close(self) -> None:
        """Close the file; what a failing disk does not take is lost, the screen had it."""
        for handler in self._logger.handlers:
            with suppress(OSError):
                handler.close()


class _File(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk must not stop the daemon; the screen has the line."""


class _Readable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%H:%M:%S")
        mark = {"WARNING": "! ", "ERROR": "!! "}.get(record.levelname, "")
        known = getattr(record, "fields", {}).items()
        fields = "  ".join(f"{name}={value}" for name, value in known if value is not None)
        text = printable(f"{time}  {mark}{record.getMessage()}" + (f"  {fields}" if fields else ""))
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _JSONLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"t": record.created, "level": record.levelname.lower(), "what": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
