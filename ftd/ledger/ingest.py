"""Reading a worker's event stream into the ledger, every line exactly once.

Rows and the stream's offset are written in one transaction.  When an attempt says from which step
it resumed, rows beyond that step are dropped: it will write them again.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ftd import faults
from ftd.clock import now
from ftd.files import complete_lines
from ftd.ledger.db import Ledger
from ftd.ledger.execution import record
from ftd.ledger.models import Attempt, Event, Metric, Run, Timing


def ingest(ledger: Ledger, attempt_id: int, stream: Path) -> int:
    """Take over all complete lines that are new; how many there were."""
    taken = 0
    while True:
        attempt = ledger.row(
            Attempt.select(Attempt.run, Attempt.number, Attempt.events_offset).where(
                Attempt.id == attempt_id
            )
        )
        if attempt is None:
            return taken
        offset = attempt["events_offset"]
        lines, end = complete_lines(stream, offset)
        if end == offset:
            return taken
        with ledger.transaction():
            moved = ledger.write(
                Attempt.update(events_offset=end).where(
                    Attempt.id == attempt_id, Attempt.events_offset == offset
                )
            )
            if moved:
                _Batch(ledger, attempt_id, attempt["run"], attempt["number"]).apply(lines)
                taken += len(lines)
            faults.point("ingest.before_commit")
        faults.point("ingest.after_commit")


class _Batch:
    """One transaction's worth of lines of one attempt."""

    def __init__(self, ledger: Ledger, attempt_id: int, run: int, number: int) -> None:
        self.ledger = ledger
        self.attempt_id = attempt_id
        self.run = run
        self.number = number
        self.metrics: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.timings: list[dict[str, Any]] = []
        self.attempt: dict[str, Any] = {}

    def apply(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                self._line(_decoded(line))
            except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
                # One damaged line must not stop the daemon, nor the lines behind it.
                text = line[:200].decode(errors="replace")
                self._record("unreadable event", {"line": text, "error": repr(error)})
        self._write_rows()
        if self.attempt:
            self.ledger.write(Attempt.update(**self.attempt).where(Attempt.id == self.attempt_id))

    def _line(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "metric":
                row = self._value(event)
                split, _, name = str(event["name"]).partition("/")
                key = (name, split, row["step"])
                self.metrics[key] = {**row, "name": name, "split": split}
            case "timing":
                self.timings.append({**self._value(event), "name": str(event["name"])})
            case "progress":
                progress = dict(event.get("shown") or {}, at=_finite(event["t"]))
                if "elapsed_s" in event:  # since when workers say so
                    progress["elapsed_s"] = _finite(event["elapsed_s"])
                step, num_steps = _count(event["step"]), _count(event["num_steps"])
                self.attempt |= {"step": step, "num_steps": num_steps, "progress": progress}
            case "checkpoint":
                row = self._value({**event, "value": event["seconds"]})
                self.timings.append({**row, "name": "checkpoint_s"})
                self.attempt["checkpoint_step"] = self.attempt["step"] = row["step"]
            case "resumed":
                self._resumed(_count(event["step"]))
            case "fingerprint":
                self.attempt["fingerprint"] = dict(event["numerics"])
            case "approximate":
                self.ledger.write(
                    Run.update(approximate=str(event["why"])).where(Run.id == self.run)
                )
            case "note":
                self._record(str(event["what"]), event.get("data"), at=_finite(event["t"]))
            case other:
                raise ValueError(f"unknown kind {other!r}")

    def _value(self, event: dict[str, Any]) -> dict[str, Any]:
        return {
            "run": self.run,
            "attempt": self.number,
            "step": _count(event["step"]),
            "value": _finite(event["value"]),
        }

    def _resumed(self, step: int) -> None:
        self._write_rows()
        self.ledger.write(Metric.delete().where(Metric.run == self.run, Metric.step > step))
        self.attempt["resumed_from_step"] = self.attempt["step"] = step

    def _write_rows(self) -> None:
        self.ledger.insert_all(Metric, self.metrics.values(), replace=True)
        self.ledger.insert_all(Timing, self.timings)
        self.metrics.clear()
        self.timings.clear()

    def _record(self, kind: str, data: Any, at: float | None = None) -> None:
        if at is None:
            record(self.ledger, kind, run=self.run, attempt=self.number, data=data)
        else:
            self.ledger.insert(
                Event,
                at=min(at, now()),
                kind=kind,
                who="worker",
                run=self.run,
                attempt=self.number,
                data=data,
            )


def _decoded(line: bytes) -> Any:
    """The JSON value of a line.  Numbers that are none (NaN, or too large) come as words.

    Raises ValueError or RecursionError for anything that could not be stored and shown again.
    """
    value = json.loads(line.decode(), parse_constant=str, parse_float=_finite_or_word)
    if rb"\u" in line:
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return value


def _finite_or_word(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _count(value: Any) -> int:
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError("not a count")
    return number
