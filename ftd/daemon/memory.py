"""Whether the kernel ended processes for want of memory lately, and so perhaps one of ours."""

from __future__ import annotations

from collections import deque
from pathlib import Path

VMSTAT = Path("/proc/vmstat")


class MemoryKills:
    """The kernel's count of them, at the last looks."""

    def __init__(self, source: Path = VMSTAT) -> None:
        self._source = source
        # two: a death may be noticed a look late
        self._seen = deque([self._count()] * 2, maxlen=2)

    def look(self) -> None:
        """Take the count; called once a tick."""
        self._seen.append(self._count())

    def lately(self) -> bool:
        """Whether there was one since the look before the last."""
        return self._count() > self._seen[0]

    def _count(self) -> int:
        """Since the machine's start, in all memory groups; 0 where the kernel does not say."""
        try:
            lines = self._source.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
