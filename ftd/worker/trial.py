"""``python -P -m ftd.worker --trial END DIRECTORY``: an attempt that ends at a place of the job's.

A *place* is a call of :meth:`ftd.job.Context.checkpoint`, counted from 1.  ``stop@3`` is asked to
leave at the third, ``kill@3`` dies there as by SIGKILL, ``end`` goes on to its end.  Everything
else is as in any attempt; each place is noted in the events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ftd import faults
from ftd.job import Writer
from ftd.protocol import Order
from ftd.worker.context import AttemptContext
from ftd.worker.main import main as execute

PLACE = "place"  # the note's kind
END = "end"


class TrialContext(AttemptContext):
    """A context that leaves or dies at one place."""

    def __init__(self, directory: Path, order: Order, *, end: str) -> None:
        super().__init__(directory, order)
        self._how, _, place = end.partition("@")
        self._left = int(place or 0)

    def checkpoint(self, step: int, files: Callable[[], Mapping[str, Writer]]) -> None:
        self.note(PLACE, step=step)
        self._left -= 1
        if self._left == 0:
            if self._how == "kill":
                faults.die()
            self.signalled()
        super().checkpoint(step, files)


def main(end: str, directory: Path) -> int:
    """Execute the attempt ordered in `directory` up to its `end`; the process's exit status."""
    return execute(directory, partial(TrialContext, end=end))
