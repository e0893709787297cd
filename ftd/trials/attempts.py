"""Attempts of a planned run outside any home: each is a worker process that ends where it is told.

For checking a job: what it does here it does under a daemon, which starts the same workers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftd.daemon.launch import environment, interpreter
from ftd.errors import ContractError
from ftd.files import MANIFEST, make_folder, read_json, seal_json
from ftd.planning.plan import PlannedRun
from ftd.protocol import CHECKPOINTS, EVENTS, LOG, ORDER, RESULT, Order, Result
from ftd.states import Outcome
from ftd.trials.entries import Contents, seal_contents
from ftd.worker.trial import END, PLACE

NEVER_S = 1e9  # checkpoints come at the places that are asked for, not by the clock


@dataclass(frozen=True)
class Ended:
    """How an attempt ended; ``result`` is None for one that was killed."""

    result: Result | None
    events: tuple[Mapping[str, Any], ...]
    last_lines: str  # of its log

    @property
    def places(self) -> tuple[int, ...]:
        """The steps done at each call of ``context.checkpoint``."""
        return tuple(
            event["data"]["step"]
            for event in self.events
            if event["kind"] == "note" and event["what"] == PLACE
        )

    @property
    def resumed_from(self) -> int | None:
        """The step it went on from; None when it did not ask for its checkpoint."""
        steps = (event["step"] for event in self.events if event["kind"] == "resumed")
        return next(steps, None)


@dataclass(frozen=True)
class Facts:
    """What must be equal however often a run was interrupted; `artifacts` are SHA-256 by name."""

    result: Result
    rows: Mapping[tuple[str, int], float]  # (metric, step) -> value
    artifacts: Mapping[str, str]

    def difference(self, other: Facts) -> str:
        """How `other` differs, in a line; empty when it does not."""
        ours, theirs = self.result, other.result
        found = list(_changes("metric", ours.metrics, theirs.metrics))
        for name in ("state_sha256", "num_steps", "flags"):
            found += _changes("", {name: getattr(ours, name)}, {name: getattr(theirs, name)})
        found += _changes("row", self.rows, other.rows)
        found += _changes("artifact", self.artifacts, other.artifacts)
        more = f"; {len(found) - 3} more" if len(found) > 3 else ""
        return "; ".join(found[:3]) + more


class Trial:
    """The attempts of one run below `root`, with a store of their own.

    The job's own files are in the folder `sources`.
    """

    def __init__(self, run: PlannedRun, root: Path, sources: Path, timeout_s: float) -> None:
        self._run = run
        self._root = root
        self._sources = sources
        self._timeout_s = timeout_s
        self._number = 0
        self._rows: dict[tuple[str, int], float] = {}

    def attempt(self, end: str = END, every_steps: int | None = None) -> Ended:
        """One more attempt, up to its `end` (see :mod:`ftd.worker.trial`).

        It saves every so many steps, and where it is stopped.  Raises ContractError when it does
        not end, or says another value for a metric row than an attempt before it.
        """
        self._number += 1
        directory = self._directory()
        make_folder(directory)
        order = self._order(every_steps)
        seal_json(directory / ORDER, order.as_json())
        self._execute(end, directory, order)
        ended = Ended(_result(directory), tuple(_events(directory)), _last_lines(directory))
        self._take_rows(ended)
        return ended

    def facts(self, ended: Ended) -> Facts:
        """What the attempt that completed the run, and all before it, leave."""
        assert ended.result is not None, "it completed"
        artifacts = {one["name"]: one["sha256"] for one in ended.result.artifacts}
        return Facts(ended.result, self._rows, artifacts)

    @contextmanager
    def with_checkpoint(self, contents: Contents, timeout_s: float) -> Iterator[Trial]:
        """A copy of these attempts whose newest checkpoint has other `contents`."""
        with TemporaryDirectory(dir=self._root.parent) as folder:
            copy = Trial(self._run, Path(folder, "run"), self._sources, timeout_s)
            copy._number, copy._rows = self._number, dict(self._rows)
            shutil.copytree(self._root, copy._root)
            checkpoint = copy.checkpoint
            manifest = read_json(checkpoint / MANIFEST) or {}
            manifest.pop("files", None)
            shutil.rmtree(checkpoint)
            seal_contents(checkpoint, contents, manifest)
            yield copy

    @property
    def checkpoint(self) -> Path:
        """The newest sealed folder of the latest attempt; ContractError when there is none."""
        found = sorted((self._directory() / CHECKPOINTS).glob("[0-9]*"))
        if not found:
            raise ContractError("asked to leave, it saved no checkpoint")
        return found[-1]

    @property
    def has_stored(self) -> bool:
        """Whether anything is in the store."""
        return any(path.is_file() for path in self._store.rglob(MANIFEST))

    @property
    def _store(self) -> Path:
        return self._root / "store"

    def _directory(self) -> Path:
        return self._root / "attempts" / str(self._number)

    def _order(self, every_steps: int | None) -> Order:
        run = self._run
        return Order(
            run_id=1,
            number=self._number,
            key=run.key,
            job=run.job,
            job_version=run.job_version,
            params=run.params,
            seeds=run.seeds,
            device_kind=run.device_kind,
            device_id="cpu:0",
            numerics=run.numerics,
            threads=run.threads,
            inputs=run.inputs,
            store=str(self._store),
            allow_downloads=False,
            checkpoint_every_s=NEVER_S,
            checkpoint_every_steps=every_steps,
            sources=str(self._sources),
        )

    def _execute(self, end: str, directory: Path, order: Order) -> None:
        command = [interpreter(order), "-P", "-m", "ftd.worker", "--trial", end, str(directory)]
        with (directory / LOG).open("wb") as log:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env=environment(os.environ, order),
                start_new_session=True,
            )
            try:
                worker.wait(self._timeout_s)
            except subprocess.TimeoutExpired:
                raise ContractError(
                    f"an attempt did not end within {self._timeout_s:.0f} s (take parameters of a "
                    f"short run); it last printed: {_last_lines(directory)}"
                ) from None
            finally:
                if worker.poll() is None:
                    os.killpg(worker.pid, signal.SIGKILL)
                    worker.wait()

    def _take_rows(self, ended: Ended) -> None:
        """As the ledger does: an attempt drops the rows beyond the step it resumed from."""
        said = {
            (event["name"], event["step"]): event["value"]
            for event in ended.events
            if event["kind"] == "metric"
        }
        for (name, step), value in said.items():
            before = self._rows.get((name, step), value)
            if before != value:
                raise ContractError(
                    f"{name} of step {step} was {before}, and {value} in a later attempt"
                )
        if (resumed := ended.resumed_from) is not None:
            self._rows = {key: v for key, v in self._rows.items() if key[1] <= resumed}
        self._rows |= said


def completed(ended: Ended) -> bool:
    """Whether it came to its end."""
    return ended.result is not None and ended.result.outcome == Outcome.COMPLETED


def _result(directory: Path) -> Result | None:
    found = read_json(directory / RESULT)
    return None if found is None else Result.from_json(found)


def _events(directory: Path) -> Iterator[Mapping[str, Any]]:
    stream = directory / EVENTS
    for line in stream.read_bytes().split(b"\n")[:-1] if stream.exists() else ():
        yield json.loads(line)


def _last_lines(directory: Path) -> str:
    lines = (directory / LOG).read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-3:])


def _changes(what: str, ours: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> Iterator[str]:
    for key in {**ours, **theirs}:
        if ours.get(key) != theirs.get(key):
            name = " of step ".join(map(str, key)) if isinstance(key, tuple) else key
            yield f"{what} {name} was {ours.get(key)}, then {theirs.get(key)}".lstrip()
