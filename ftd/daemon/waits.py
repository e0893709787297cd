"""Waits that end early: for data once one run found it, and for a clock that was set back.

A missing folder is looked for by one run at a time, in longer and longer intervals; the other runs
that read it wait with it.  Only workers look: a dead file server hangs whoever touches it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftd.clock import monotonic, now
from ftd.config import Retries
from ftd.daemon.log import Log
from ftd.daemon.retry import data_wait_s, longest_wait_s
from ftd.ledger import data_waits, scheduling
from ftd.ledger.db import Ledger
from ftd.ledger.execution import LiveAttempt

SET_BACK_S = 1.0  # the clock against the machine's own; less is drift


@dataclass(frozen=True)
class _InVain:
    """Looks for the same data, one after the other."""

    looks: int = 0
    attempt: int = 0  # id of the last attempt that looked


class Waits:
    """What queued runs wait for, beyond their own back-off."""

    def __init__(self, ledger: Ledger, retries: Retries, log: Log) -> None:
        self._ledger = ledger
        self._longest_s = longest_wait_s(retries)
        self._log = log
        # Words about the data -> looks.  Memory is enough: a new daemon looks at once.
        self._in_vain: dict[str, _InVain] = {}
        self._clock_s = math.inf  # UTC less the monotonic clock; infinity: not seen yet

    def review(self) -> None:
        """End waits that nobody meant to last so long; to be called often."""
        if self._clock_s == math.inf:
            self._in_vain = dict.fromkeys(data_waits.look_now(self._ledger), _InVain())
        ahead_s = now() - monotonic()
        if ahead_s < self._clock_s - SET_BACK_S:
            ended = scheduling.end_long_waits(self._ledger, now(), self._longest_s)
            if ended:
                self._log.warning("the clock was set back; waits that got too long end", runs=ended)
            self._clock_s = ahead_s
        self._clock_s = max(self._clock_s, ahead_s)

    def next_look_s(self, missing: str) -> float:
        """Seconds until data that an attempt just did not find at `missing` is looked for again."""
        return data_wait_s(self._looks(data_waits.words(missing)) + 1)

    def not_found(self, missing: str, attempt: LiveAttempt) -> None:
        """Count the look of an `attempt`, whose end is recorded."""
        words = data_waits.words(missing)
        looks = self._looks(words)
        if looks == 0:
            self._log.warning("waiting", run=f"r{attempt.run_id}", why=words)
        self._in_vain[words] = _InVain(looks + 1, attempt.id)

    def found(self, attempt: LiveAttempt) -> None:
        """An `attempt` got past its inputs: whoever waits for one of them goes on."""
        if not self._in_vain:
            return
        for place in data_waits.inputs_of(self._ledger, attempt.run_id):
            words = data_waits.words(place)
            # one that began before the last look may have read its images before they went away
            if words in self._in_vain and self._in_vain[words].attempt < attempt.id:
                data_waits.go_on(self._ledger, words)
                del self._in_vain[words]
                self._log.info("going on", run=f"r{attempt.run_id}", after=words)

    def _looks(self, words: str) -> int:
        return self._in_vain.get(words, _InVain()).looks
