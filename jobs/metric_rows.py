"""The metrics of a program over all attempts of its run, kept beside the program's own state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ftd.job import Context
from jobs.metric_lines import Row, is_finite, row_in

LAST_LINES = 5


class Rows:
    """The metrics of a run over all its attempts.

    A program resumes from a step that only it knows.  What earlier attempts said of the steps
    before is said again, so that the ledger has it whole.
    """

    def __init__(self, context: Context, path: Path, step: int) -> None:
        self._context = context
        self._path = path
        self._earlier = list(_rows(path))
        self._rows: dict[tuple[str, int], float] = {}
        self.step = step
        self.diverged = False
        self.last_lines: list[str] = []

    def take(self, line: str) -> None:
        """A line that the program printed."""
        self.last_lines = [*self.last_lines, line][-LAST_LINES:]
        try:
            row = row_in(line)
        except ValueError as error:
            self._context.note("metric line not understood", line=line[:200], why=str(error))
            return
        if row is None:
            return
        if not is_finite(row):
            self.diverged = True
            self._context.note("metric is not finite", name=row.name, step=row.step)
            return
        self._repeat(row.step)
        self._record(row)
        with self._path.open("a") as stream:
            stream.write(json.dumps([row.name, row.value, row.step]) + "\n")
        self._context.progress(self.step, self.step)

    def finish(self) -> None:
        """The program is done: what it did not say again still counts."""
        self._repeat(None)

    def latest(self) -> dict[str, float]:
        """Each metric's value at its last step."""
        found: dict[str, tuple[int, float]] = {}
        for (name, step), value in self._rows.items():
            if name not in found or step >= found[name][0]:
                found[name] = step, value
        return {name: value for name, (_, value) in found.items()}

    def _repeat(self, before: int | None) -> None:
        """Say what earlier attempts said of the steps `before` the one this attempt begins with."""
        earlier, self._earlier = self._earlier, []
        for row in earlier:
            if before is None or row.step < before:
                self._record(row)

    def _record(self, row: Row) -> None:
        self.step = max(self.step, row.step)
        self._rows[row.name, row.step] = row.value
        self._context.metric(row.name, row.value, row.step)


def _rows(path: Path) -> Iterator[Row]:
    """What earlier attempts wrote; a last line that was cut off does not count."""
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                name, value, step = json.loads(line)
            except ValueError:
                continue
            yield Row(name, value, step)
