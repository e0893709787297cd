"""Between two attempts of one process: what the one left must not reach the other.

After an attempt the worker looks at itself.  What a library sets up when it is first used (threads,
descriptors, variables) may be there after the first attempt, and stays; from then on nothing may be
left: not another folder, variable, umask or handler of a signal, no descriptor, thread or process
more, and no more memory than :data:`GROWTH_BYTES`.  Whoever finds something leaves, and the next
run begins in a process of its own.  The global random generators, from which no job of ours draws
what matters, are put back to where they began.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ftd.clock import monotonic
from ftd.process import pids
from ftd.protocol import MARK
from ftd.worker.loaded import Loaded

GROWTH_BYTES = 1 << 30
LIBRARYS = 0b11 << 31  # the C library's own signals, 32 and 33: it handles them with threads
ENDING_TRIES, ENDING_S = 20, 0.005
LOOK_EVERY_S = 1.0  # at the files that are loaded: thousands, and no upgrade is that quick


@dataclass(frozen=True)
class Traces:
    """What can be seen of a process that an attempt may have changed."""

    folder: str
    variables: dict[str, str]
    umask: str
    signals: tuple[int, ...]  # ignored and handled ones, as bit masks
    descriptors: Counter[str]  # what is open, and how often
    threads: int
    companions: frozenset[int]  # other processes of its session
    memory_bytes: int


def traces() -> Traces:
    """Look at this process.  Raises OSError."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    return Traces(
        folder=os.getcwd(),
        variables={name: value for name, value in os.environ.items() if name != MARK},
        umask=status["Umask"],
        signals=tuple(int(status[name], 16) & ~LIBRARYS for name in ("SigIgn", "SigCgt")),
        descriptors=_descriptors(),
        threads=int(status["Threads"]),
        companions=frozenset(pid for pid in pids() if pid != os.getpid() and _is_ours(pid)),
        memory_bytes=int(status["RssAnon"].split()[0]) << 10,
    )


class Between:
    """Says after each attempt whether this process may execute another."""

    def __init__(self) -> None:
        self._first: Traces | None = None
        self._loaded: Loaded | None = None
        self._looked_at = 0.0

    def left(self, directory: Path) -> str | None:
        """What the attempt in `directory` left, in a few words; None when nothing."""
        rewind()
        gc.collect()
        gc.freeze()  # what is alive now is no garbage later: the next collection is quick
        now = self._look()
        if now.companions:
            return f"processes {sorted(now.companions)}"
        if now.folder != str(directory.resolve()):
            return f"another folder, {now.folder}"
        if self._first is None:
            self._first, self._loaded = now, Loaded()
            self._looked_at = monotonic()
            return None
        return _difference(self._first, now) or self._upgrade()

    def _look(self) -> Traces:
        """The traces now; threads that are ending get a moment for it."""
        now = traces()
        for _ in range(ENDING_TRIES):
            if self._first is None or now.threads <= self._first.threads:
                break
            time.sleep(ENDING_S)
            now = traces()
        return now

    def _upgrade(self) -> str | None:
        if self._loaded is None or monotonic() - self._looked_at < LOOK_EVERY_S:
            return None
        self._looked_at = monotonic()
        return "files that are loaded have changed" if self._loaded.changed() else None


def rewind() -> None:
    """Put the global random generators to where they begin, and give back a GPU's idle memory."""
    random.seed(0)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(0)
    if torch is not None:
        torch.manual_seed(torch.initial_seed())
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _difference(first: Traces, now: Traces) -> str | None:
    names = sorted(
        name
        for name in {*first.variables, *now.variables}
        if first.variables.get(name) != now.variables.get(name)
    )
    opened = now.descriptors - first.descriptors
    found = {
        f"variables {' '.join(names)}": names,
        f"umask {now.umask}": now.umask != first.umask,
        "other handlers of signals": now.signals != first.signals,
        f"open files: {' '.join(sorted(opened))}": opened,
        f"{now.threads} threads": now.threads > first.threads,
        f"{now.memory_bytes >> 20} MiB": now.memory_bytes > first.memory_bytes + GROWTH_BYTES,
    }
    return next((words for words, is_left in found.items() if is_left), None)


def _descriptors() -> Counter[str]:
    """What this process has open; numbers of pipes and sockets do not count."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:  # that of the listing itself
                continue
            found[target.partition(":[")[0]] += 1
    return found


def _is_ours(pid: int) -> bool:
    try:
        return os.getsid(pid) == os.getpid()
    except OSError:
        return False
