"""The Context a job is given: events, checkpoints, artifacts and stop requests of one attempt."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ftd import faults
from ftd.clock import monotonic, now
from ftd.files import Stream, all_at_once, fsync_file, read_json, sha256_of
from ftd.job import Input, Stopped, Writer
from ftd.protocol import (
    ARTIFACTS,
    EVENTS,
    HEARTBEAT,
    ORDER,
    SHARED_ACTUAL,
    SHARED_ALONE,
    STOP,
    Order,
)
from ftd.store import Store
from ftd.worker.checkpoints import SealedCheckpoint, newest, save
from ftd.worker.kept import kept_file
from ftd.worker.log import say
from ftd.worker.workspace import workspace

PROGRESS_EVERY_S = 0.5
SHARED_EVERY_S = 5.0
LOOK_EVERY_S = 0.5  # for a stop request that came without a signal


class AttemptContext:
    """Implements :class:`ftd.job.Context` on an attempt's directory."""

    def __init__(self, directory: Path, order: Order) -> None:
        self._directory = directory
        self._order = order
        # The daemon made folders and order without waiting for the disk.
        self._events = Stream(directory / EVENTS, [directory / ORDER, *_folders(directory)])
        self._numerics: Mapping[str, Any] = {}
        self._artifacts: dict[str, dict[str, Any]] = {}
        self._signalled = False
        self._saved_step = -1
        self._began = self._saved_at = self._shown_at = monotonic()
        self._looked_at = self._shared_at = self._began
        self._shared = {SHARED_ACTUAL: 0.0, SHARED_ALONE: 0.0}
        self._told_shared = dict(self._shared)
        self._asked: str | None = None
        self._store = Store(Path(order.store), self._used)

    @property
    def seeds(self) -> Mapping[str, int]:
        return self._order.seeds

    @property
    def device(self) -> str:
        return "cuda" if self._order.device_kind == "gpu" else "cpu"

    @property
    def threads(self) -> int:
        return self._order.threads

    @property
    def numerics(self) -> str:
        return self._order.numerics

    @property
    def allow_downloads(self) -> bool:
        return self._order.allow_downloads

    @property
    def store(self) -> Store:
        return self._store

    @property
    def artifacts(self) -> tuple[Mapping[str, Any], ...]:
        """What was kept so far: {name, bytes, sha256}."""
        return tuple(self._artifacts.values())

    def fingerprint(self, numerics: Mapping[str, Any]) -> None:
        self._numerics = dict(numerics)
        self._emit("fingerprint", numerics=self._numerics)

    def restore(self) -> SealedCheckpoint | None:
        found = newest(
            self._directory.parent,
            self._order.number,
            self._order.key,
            lambda folder, why: self.note("checkpoint passed over", folder=str(folder), why=why),
        )
        if self._order.number > 1:
            faults.point("restore.found")
            self._emit("resumed", step=found.step if found else 0)
            faults.point("restore.told")
            say(f"resumes from step {found.step}" if found else "begins again: no checkpoint")
        if found is not None:
            self._saved_step = found.step
            self._compare_numerics(found)
        return found

    def checkpoint(self, step: int, files: Callable[[], Mapping[str, Writer]]) -> None:
        asked = self.stop_request()
        if self._shared_at < monotonic() - SHARED_EVERY_S:
            self._tell_shared()
        if step != self._saved_step and (asked or self._due(step)):
            self._save(step, files())
        if asked:
            raise Stopped(asked)

    def verified(self, source: Input) -> str:
        for planned in self._order.inputs.values():
            if (planned["kind"], planned["where"]) == (source.kind, source.where):
                return str(planned["fingerprint"])
        raise LookupError(f"{source.kind} {source.where} is no input of this run")

    def kept(self, run: str, name: str) -> Path:
        source = next(
            source
            for source in self._order.inputs.values()
            if (source["kind"], source["where"]) == ("run", run)
        )
        return kept_file(self._directory.parents[2], source["run"], source["fingerprint"], name)

    def workspace(self) -> Path:
        self._events.sync()  # and all that leads to the folder
        return workspace(self._directory.parent, self._order.number)

    def metric(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise ValueError(f"metric {name} is {value} at step {step}; metrics are finite numbers")
        if "/" not in name:
            raise ValueError(f"metric {name!r} does not name its split, as in val/top1")
        self._emit("metric", name=name, value=float(value), step=step)

    def timing(self, name: str, value: float, step: int) -> None:
        self._emit("timing", name=name, value=float(value), step=step)

    def progress(self, step: int, num_steps: int, **shown: float | int | str) -> None:
        time = monotonic()
        if time - self._shown_at >= PROGRESS_EVERY_S:
            self._shown_at = time
            elapsed_s = time - self._began
            self._emit("progress", step=step, num_steps=num_steps, elapsed_s=elapsed_s, shown=shown)
            os.utime(self._directory / HEARTBEAT)

    def note(self, kind: str, **data: Any) -> None:
        self._emit("note", what=kind, data=data)

    def artifact(self, name: str, write: Writer) -> None:
        if name != Path(name).name:
            raise ValueError(f"artifact {name!r} is no plain file name")
        folder = self._directory / ARTIFACTS
        folder.mkdir(exist_ok=True)
        path, aside = folder / name, folder / f".{name}"
        write(aside)
        os.replace(aside, path)
        self._artifacts[name] = {
            "name": name,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }

    def signalled(self) -> None:
        """A SIGTERM arrived; the next checkpoint is a stop."""
        self._signalled = True

    def stop_request(self) -> str | None:
        """Why this attempt shall leave, or None; looks at the disk twice a second at most."""
        if self._asked is None and (
            self._signalled or monotonic() - self._looked_at >= LOOK_EVERY_S
        ):
            self._looked_at = monotonic()
            request = read_json(self._directory / STOP)
            if request is not None:
                self._asked = str(request.get("why", "stop"))
            elif self._signalled:
                self._asked = "signal"
        return self._asked

    def end(self) -> int:
        """Nothing is told any more; the final offset of the events."""
        self._tell_shared()
        return self._events.offset

    def sync(self) -> None:
        """Make everything that was told and kept durable."""
        kept: list[Path] = []
        if self._artifacts:
            folder = self._directory / ARTIFACTS
            kept = [self._directory, folder, *(folder / name for name in self._artifacts)]
        all_at_once([self._events.sync, *(partial(fsync_file, path) for path in kept)])

    def close(self) -> None:
        """Close the event stream, and give back what the store holds in memory."""
        self._events.close()
        self._store.close()

    def _used(self, actual_s: float, alone_s: float) -> None:
        self._shared[SHARED_ACTUAL] += actual_s
        self._shared[SHARED_ALONE] += alone_s

    def _tell_shared(self) -> None:
        """The sums so far; the largest of an attempt counts."""
        self._shared_at = monotonic()
        if self._shared != self._told_shared:
            self._told_shared = dict(self._shared)
            for name, seconds in self._told_shared.items():
                self.timing(name, seconds, 0)

    def _due(self, step: int) -> bool:
        order = self._order
        by_steps = order.checkpoint_every_steps
        if by_steps and step % by_steps == 0:
            return True
        return monotonic() - self._saved_at >= order.checkpoint_every_s

    def _save(self, step: int, writers: Mapping[str, Writer]) -> None:
        started = monotonic()
        manifest = {
            "key": self._order.key,
            "attempt": self._order.number,
            "events_offset": self._events.sync(),
            "numerics": self._numerics,
        }
        save(self._directory, step, writers, manifest)
        self._saved_step = step
        self._saved_at = monotonic()
        self._emit("checkpoint", step=step, seconds=self._saved_at - started)

    def _compare_numerics(self, found: SealedCheckpoint) -> None:
        before, here = found.manifest.get("numerics", {}), json.loads(json.dumps(self._numerics))
        differing = sorted(name for name in {*before, *here} if before.get(name) != here.get(name))
        if differing:
            changes = ", ".join(f"{n}: {before.get(n)} -> {here.get(n)}" for n in differing)
            self._emit("approximate", why=f"resumed at step {found.step} with other {changes}")

    def _emit(self, kind: str, **fields: Any) -> None:
        self._events.append({"t": now(), "kind": kind, **fields})


def _folders(directory: Path) -> list[Path]:
    """The folders that the names on the way to an attempt's directory are in, up to the home."""
    return [folder for folder in list(directory.parents)[:4] if os.access(folder, os.R_OK)]
