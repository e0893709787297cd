"""The two clocks: UTC seconds for rows, monotonic seconds for durations."""

from __future__ import annotations

import time


def now() -> float:
    """UTC epoch seconds, for what is recorded; may jump when somebody sets the clock."""
    return time.time()


def monotonic() -> float:
    """Seconds that only ever grow, for durations and waits; meaningless across reboots."""
    return time.monotonic()
