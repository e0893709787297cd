"""A job's context in a folder: records what the job reports, keeps sealed checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ftd.files import seal_folder, sealed_folder
from ftd.inputs import fingerprint
from ftd.job import Input, Stopped, Writer
from ftd.seeds import streams
from ftd.store import Store


class Killed(BaseException):
    """Stands in for a SIGKILL: nothing is saved, and no job handles it."""


@dataclass(frozen=True)
class FolderCheckpoint:
    """One sealed folder."""

    step: int
    folder: Path

    def path(self, name: str) -> Path:
        """The file saved under `name`."""
        return self.folder / name


@dataclass
class FolderContext:
    """Implements the ``Context`` protocol below `root`.

    `stop_at` and `kill_at` count the job's calls of :meth:`checkpoint`: at that call (from 1) it
    saves and stops, or dies (:class:`Killed`).  Make a new context on the same root to resume.
    """

    root: Path
    stop_at: int | None = None
    kill_at: int | None = None
    seeds: Mapping[str, int] = field(default_factory=lambda: streams(1, 0))
    device: str = "cpu"
    threads: int = 1
    numerics: str = "exact"
    allow_downloads: bool = False
    metrics: dict[tuple[str, int], float] = field(default_factory=dict)
    timings: list[tuple[str, float, int]] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # the step of every checkpoint call
    resumed_from: int = 0  # the step of the checkpoint that the job was given
    runs: Mapping[str, Path] = field(default_factory=dict)  # folders of other runs' artifacts
    shared: Path | None = None  # where the store is, if not below root

    @cached_property
    def store(self) -> Store:
        """A store that contexts on one root share."""
        return Store(self.shared or self.root / "store")

    def fingerprint(self, numerics: Mapping[str, Any]) -> None:
        """Recorded as a note."""
        self.notes.append(("fingerprint", dict(numerics)))

    def restore(self) -> FolderCheckpoint | None:
        """The newest checkpoint whose files are intact."""
        for folder in sorted(self.root.glob("checkpoint-*"), reverse=True):
            manifest = sealed_folder(folder)
            if manifest is not None:
                self.resumed_from = manifest["step"]
                return FolderCheckpoint(self.resumed_from, folder)
        return None

    def checkpoint(self, step: int, files: Callable[[], Mapping[str, Writer]]) -> None:
        """Save and stop if this is the call to stop at, die if it is the one to die at."""
        self.places.append(step)
        if self.kill_at == len(self.places):
            raise Killed
        if self.stop_at == len(self.places):
            number = len(list(self.root.glob("checkpoint-*")))
            seal_folder(self.root / f"checkpoint-{number:04d}", files(), {"step": step})
            raise Stopped("asked")

    def verified(self, source: Input) -> str:
        """As it is now."""
        return fingerprint(source)

    def kept(self, run: str, name: str) -> Path:
        """As another run left it."""
        return self.runs[run] / name

    def metric(self, name: str, value: float, step: int) -> None:
        """Rows are keyed by name and step; repeating one must give the same value."""
        assert self.metrics.setdefault((name, step), value) == value

    def timing(self, name: str, value: float, step: int) -> None:
        """Recorded."""
        self.timings.append((name, value, step))

    def progress(self, step: int, num_steps: int, **shown: float | int | str) -> None:
        """Recorded."""
        self.shown.append({"step": step, "num_steps": num_steps, **shown})

    def note(self, kind: str, **data: Any) -> None:
        """Recorded."""
        self.notes.append((kind, data))

    def artifact(self, name: str, write: Writer) -> None:
        """Kept below ``root/artifacts``."""
        folder = self.root / "artifacts"
        folder.mkdir(exist_ok=True)
        write(folder / name)
