"""Standard output as a channel for answers, in a process that a command asks."""

from __future__ import annotations

import os
from typing import TextIO


def answers() -> TextIO:
    """Standard output as it is; from now on, whatever libraries print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel
