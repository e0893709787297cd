"""Checkpoints of one run: sealed folders, the two newest kept, found again across attempts.

An attempt writes only below its own directory and reads what earlier attempts left.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftd import faults
from ftd.files import make_folder, seal_folder, sealed_folder
from ftd.job import Writer
from ftd.protocol import CHECKPOINTS

KEPT = 2


@dataclass(frozen=True)
class SealedCheckpoint:
    """A verified checkpoint: every file has the digest that was recorded when it was written."""

    step: int
    attempt: int
    folder: Path
    manifest: Mapping[str, Any]

    def path(self, name: str) -> Path:
        """The file saved under `name`; KeyError when there is none."""
        if name not in self.manifest["files"]:
            raise KeyError(f"checkpoint {self.folder} holds no {name}")
        return self.folder / name


def save(
    directory: Path, step: int, writers: Mapping[str, Writer], manifest: Mapping[str, Any]
) -> Path:
    """Seal a checkpoint of `step` below an attempt's `directory`, then drop all but the newest two.

    The older ones go only after the new one is durable.
    """
    folder = directory / CHECKPOINTS / f"{step:09d}"
    make_folder(folder.parent)
    if not folder.exists():
        seal_folder(folder, writers, {**manifest, "step": step})
    for old in sorted(_numbered(folder.parent), reverse=True)[KEPT:]:
        faults.point("checkpoint.pruning")
        shutil.rmtree(folder.parent / f"{old:09d}")
    return folder


def newest(
    attempts: Path, before: int, key: str, damaged: Callable[[Path, str], None]
) -> SealedCheckpoint | None:
    """The checkpoint with the most steps that attempts numbered below `before` left intact.

    Calls `damaged(folder, why)` for each one that has to be passed over: torn, altered, or of
    another run key.
    """
    for step, attempt, folder in sorted(_candidates(attempts, before), reverse=True):
        manifest = sealed_folder(folder)
        if manifest is None or not isinstance(manifest.get("numerics", {}), dict):
            damaged(folder, "its files are not those that were sealed")
        elif manifest.get("key") != key:
            damaged(folder, "it belongs to another run key")
        else:
            return SealedCheckpoint(step, attempt, folder, manifest)
    return None


def _candidates(attempts: Path, before: int) -> Iterator[tuple[int, int, Path]]:
    for attempt in _numbered(attempts):
        if attempt < before:
            folder = attempts / str(attempt) / CHECKPOINTS
            for step in _numbered(folder):
                yield step, attempt, folder / f"{step:09d}"


def _numbered(folder: Path) -> list[int]:
    try:
        return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    except FileNotFoundError:
        return []
