"""Whether every entry of a job's checkpoints matters: each is left out, and changed, in turn.

A resumed run has to fail or to end differently without it, or the entry has no place in the format.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ftd.files import MANIFEST, read_json
from ftd.trials.entries import (
    WAYS,
    Contents,
    Entry,
    altered,
    contents_of,
    entries_in,
    seal_contents,
)
from tests.resume import Attempts, Case, Stop, Whole


@dataclass(frozen=True)
class Situation:
    """A run to resume: `case` left at a place (from 1) of its `whole` run."""

    case: Case
    whole: Whole
    place: int


def check_entries(situations: Sequence[Situation], root: Path) -> int:
    """Each entry of the checkpoints left in these situations matters in one of them at least.

    Both leaving it out and changing it must show.  Returns how many entries there are.
    """
    left = [_left(situation, root / f"left-{n}") for n, situation in enumerate(situations)]
    harmless = {
        (entry, how): None
        for attempts in left
        for entry in entries_in(contents_of(_checkpoint(attempts)))
        for how in WAYS
    }
    num_entries = len(harmless) // 2
    assert num_entries, "the checkpoints are empty"
    for situation, attempts in zip(situations, left, strict=True):
        for entry, how in list(harmless):
            if _matters(situation.whole, attempts, entry, how):
                del harmless[entry, how]
    assert not harmless, "it makes no difference when " + ", ".join(
        f"{entry} is {how}" for entry, how in harmless
    )
    return num_entries


def _left(situation: Situation, root: Path) -> Attempts:
    """The run as it was left; resumed from an equal checkpoint, it ends as the whole one."""
    attempts = Attempts(situation.case, root)
    assert attempts.run(Stop(situation.place)) is None, f"no place {situation.place}"
    with _resealed(attempts, contents_of(_checkpoint(attempts))) as copy:
        difference = _difference(situation.whole, copy)
    assert not difference, f"left at place {situation.place}, a run ends differently: {difference}"
    return attempts


def _matters(whole: Whole, left: Attempts, entry: Entry, how: str) -> bool:
    """Whether the run fails or ends differently when `entry` is changed before it is resumed."""
    contents = contents_of(_checkpoint(left))
    if entry not in entries_in(contents):
        return False  # a checkpoint of another situation holds it
    for changed in altered(contents, entry, how):
        with _resealed(left, changed) as copy:
            try:
                if _difference(whole, copy):
                    return True
            except Exception:  # whatever it is, the change did not go unnoticed
                return True
    return False


@contextmanager
def _resealed(left: Attempts, contents: Contents) -> Iterator[Attempts]:
    """The same attempts, their checkpoint being one of these `contents`."""
    with TemporaryDirectory(dir=left.root.parent) as folder:
        copy = left.copied(Path(folder) / "run")
        _reseal(_checkpoint(copy), contents)
        yield copy


def _difference(whole: Whole, attempts: Attempts) -> str:
    """How the run differs from the whole one when another attempt completes it."""
    completed = attempts.run()
    assert completed is not None
    return whole.outcome.difference(attempts.outcome(completed))


def _checkpoint(attempts: Attempts) -> Path:
    return max(attempts.root.glob("checkpoint-*"))


def _reseal(folder: Path, contents: Contents) -> None:
    """Make `folder` a checkpoint of these files, of the same step, as if it had been saved so."""
    manifest = read_json(folder / MANIFEST)
    assert manifest is not None
    shutil.rmtree(folder)
    seal_contents(folder, contents, {"step": manifest["step"]})
