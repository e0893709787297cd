"""What a worker tells people in its attempt's log, around whatever its job prints."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write a line to the log, if the disk still takes it."""
    with suppress(OSError):
        print(text, file=sys.stderr)
