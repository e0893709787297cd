"""The resume harness: a job's run is left or killed anywhere, and must end as one that was not.

A job plugs in by naming a :class:`Case`.  A check raises AssertionError that says what differed, so
it serves as a test and, where something was broken on purpose, as a negative control.

    whole = run_whole(case, tmp_path / "whole")
    check_ways(case, whole, tmp_path / "ways", every_place(whole))
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftd.files import sha256_of
from ftd.job import Completed, Job, Params, Stopped
from ftd.seeds import streams
from tests.context import FolderContext, Killed

Rows = Mapping[tuple[str, int], float]  # (metric, step) -> value


@dataclass(frozen=True)
class Case:
    """A job with resolved parameters; `store` is what its runs share, as in a home.

    `runs` are folders of other runs' artifacts, by what the job calls those runs.
    """

    job: Job[Any]
    params: Params
    store: Path
    seeds: Mapping[str, int] = field(default_factory=lambda: streams(1, 0))
    threads: int = 1
    runs: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What must be equal however often a run was interrupted; `artifacts` are SHA-256 by name."""

    completed: Completed
    rows: Rows
    artifacts: Mapping[str, str]

    def difference(self, other: Outcome) -> str:
        """How `other` differs, in a line; empty when it does not."""
        ours, theirs = self.completed.state_sha256, other.completed.state_sha256
        found = [f"state {ours} became {theirs}"] if ours != theirs else []
        found += _changes("metric", self.completed.metrics, other.completed.metrics)
        found += _changes("row", self.rows, other.rows)
        found += _changes("artifact", self.artifacts, other.artifacts)
        if not found and self.completed != other.completed:
            found = [f"{self.completed} became {other.completed}"]
        return "; ".join(found)


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its outcome and its places to leave, each with the steps done there."""

    outcome: Outcome
    places: tuple[int, ...]
    context: FolderContext


@dataclass(frozen=True)
class Stop:
    """An attempt is asked to leave at its n-th place (from 1): it saves."""

    place: int


@dataclass(frozen=True)
class Kill:
    """An attempt dies at its n-th place (from 1): what it did since its checkpoint is lost."""

    place: int


Way = Sequence[Stop | Kill]  # how attempts end, one after the other; another one then completes


def run_whole(case: Case, root: Path) -> Whole:
    """The run in `root` that nothing interrupts."""
    attempt = Attempts(case, root)
    completed = attempt.run()
    assert completed is not None
    context = attempt.context
    return Whole(attempt.outcome(completed), tuple(context.places), context)


def run_in_parts(case: Case, root: Path, way: Way) -> Outcome:
    """The run in `root` (which may hold a checkpoint) whose attempts end in this `way`.

    An attempt that completes before its end comes ends the run.
    """
    attempts = Attempts(case, root)
    for end in (*way, None):
        completed = attempts.run(end)
        if completed is not None:
            break
    assert completed is not None
    return attempts.outcome(completed)


def check_ways(case: Case, whole: Whole, root: Path, ways: Iterable[Way]) -> None:
    """Interrupted in each of these ways, the run ends as the `whole` one did.

    A way's first end must be one of the whole run's places; those after it need not be reached.
    """
    num_ways = 0
    for way in ways:
        assert 1 <= way[0].place <= len(whole.places), f"the run has no place for {way[0]}"
        num_ways += 1
        folder = root / str(num_ways)
        difference = whole.outcome.difference(run_in_parts(case, folder, way))
        assert not difference, f"attempts that end by {[*way]} make another run: {difference}"
        shutil.rmtree(folder)
    assert num_ways, "no way was tried"


def every_place(whole: Whole) -> Iterator[Way]:
    """Left once, at each place."""
    return ([Stop(place)] for place in range(1, len(whole.places) + 1))


def twice_in_a_row(places: Iterable[int]) -> Iterator[Way]:
    """Left at a place, and twice more before anything else was done; killed then."""
    return ([Stop(place), Stop(1), Stop(1), Kill(1)] for place in places)


def killed_during_resume(places: Iterable[int]) -> Iterator[Way]:
    """Killed when the checkpoint has been read, before there is another: it is read again."""
    return ([Stop(place), Kill(1), Kill(2)] for place in places)


def at_random(whole: Whole, seed: int, num_ways: int, num_ends: int = 5) -> Iterator[Way]:
    """Left and killed up to `num_ends` times, anywhere."""
    draw = random.Random(seed)
    for _ in range(num_ways):
        places = (draw.randint(1, len(whole.places)) for _ in range(draw.randint(1, num_ends)))
        yield [Kill(place) if draw.random() < 1 / 3 else Stop(place) for place in places]


class Attempts:
    """Attempts of one run in the folder `root`, and the metric rows that are left of them."""

    def __init__(self, case: Case, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.case = case
        self.root = root
        self.context = FolderContext(root)
        self._rows: dict[tuple[str, int], float] = {}

    def run(self, end: Stop | Kill | None = None) -> Completed | None:
        """One more attempt; None when it did not complete."""
        case = self.case
        self.context = FolderContext(
            self.root,
            stop_at=end.place if isinstance(end, Stop) else None,
            kill_at=end.place if isinstance(end, Kill) else None,
            seeds=case.seeds,
            threads=case.threads,
            shared=case.store,
            runs=case.runs,
        )
        completed: Completed | None = None
        with suppress(Stopped, Killed):
            completed = case.job.run(case.params, self.context)
        self._take_rows()
        return completed

    def outcome(self, completed: Completed) -> Outcome:
        """What the last attempt completed, with the rows of all of them."""
        artifacts = (self.root / "artifacts").glob("*")
        return Outcome(completed, self._rows, {path.name: sha256_of(path) for path in artifacts})

    def copied(self, root: Path) -> Attempts:
        """The same attempts in another folder, to go on there in another way."""
        shutil.copytree(self.root, root)
        copy = Attempts(self.case, root)
        copy._rows = dict(self._rows)
        return copy

    def _take_rows(self) -> None:
        """As the ledger does: an attempt drops the rows beyond the step it resumed from."""
        for (name, step), value in self.context.metrics.items():
            before = self._rows.get((name, step), value)
            assert before == value, f"{name} of step {step} was {before}, then {value}"
        kept = {key: v for key, v in self._rows.items() if key[1] <= self.context.resumed_from}
        self._rows = kept | self.context.metrics


def _changes(what: str, ours: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> list[str]:
    """Up to three of the entries that differ."""
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    said = [f"{what} {key}: {ours.get(key)} became {theirs.get(key)}" for key in keys[:3]]
    return said + [f"{len(keys) - 3} more"] * (len(keys) > 3)
