"""A job's run interrupted in many ways, each of which has to end as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ftd.clock import monotonic
from ftd.errors import ContractError
from ftd.planning.plan import PlannedRun
from ftd.states import Outcome
from ftd.trials.attempts import Ended, Facts, Trial, completed
from ftd.trials.entries import LEFT_OUT, WAYS, Entry, altered, contents_of, entries_in
from ftd.worker.trial import END

KILLED_SAVES_EVERY = 2  # steps: so that a killed attempt has done more than it saved


@dataclass(frozen=True)
class Whole:
    """A run that nothing interrupted, and the steps done at its places to leave."""

    facts: Facts
    places: Sequence[int]
    took_s: float


class Runs:
    """Runs of one question in one folder.

    They share no store: whatever the job keeps there has to be computed in each.
    """

    def __init__(self, run: PlannedRun, folder: Path, timeout_s: float) -> None:
        self._run = run
        self._folder = folder
        self._timeout_s = timeout_s
        self._number = 0

    def new(self) -> Trial:
        """A run of which there is no attempt yet."""
        self._number += 1
        return Trial(
            self._run, self._folder / f"run-{self._number}", self._folder / "jobs", self._timeout_s
        )

    def whole(self) -> Whole:
        """Two runs that nothing interrupts: they have to end alike."""
        began = monotonic()
        first, again = self.new(), self.new()
        ended = first.attempt()
        _require_completed(ended, "run as it is")
        took_s = monotonic() - began
        facts = first.facts(ended)
        twin = again.attempt()
        _require_completed(twin, "run once more")
        _require_equal(facts, again.facts(twin), "run twice")
        if twin.places != ended.places:
            raise ContractError("run twice, it calls context.checkpoint at other steps")
        return Whole(facts, ended.places, took_s)

    def interrupt(self, whole: Whole, places: Sequence[int]) -> int:
        """Interrupt a run in several ways, each of which must end as the `whole` one.

        Returns how many ways there are.
        """
        middle = places[len(places) // 2]
        ways = [
            *([f"stop@{place}"] for place in places),
            *([f"kill@{place}"] for place in sorted({middle, places[-1]})),
            [f"stop@{middle}", "kill@1", "stop@1"],
        ]
        for way in ways:
            self._interrupted(whole, way)
        return len(ways)

    def _interrupted(self, whole: Whole, way: Sequence[str]) -> None:
        trial = self.new()
        how = f"interrupted by {', '.join(way)}"
        for number, end in enumerate([*way, END]):
            kills = any(one.startswith("kill") for one in way)
            ended = trial.attempt(end, every_steps=KILLED_SAVES_EVERY if kills else None)
            if number:
                _check_resumed(ended, how)
            if completed(ended) and (number or end == END):
                break
            if end.startswith("stop"):
                _require_stopped(ended, end)
            elif end == END:
                _require_completed(ended, how)
        _require_equal(whole.facts, trial.facts(ended), how)

    def left_at(self, place: int) -> Trial:
        """A run that was asked to leave at a place."""
        trial = self.new()
        _require_stopped(trial.attempt(f"stop@{place}"), f"stop@{place}")
        return trial

    def check_entries(self, whole: Whole, places: Sequence[int], num_entries: int) -> str:
        """Each entry of its checkpoints has to matter at one of these places, or at the first, or
        midway: behind the last step, where a job may have most of its places, little does.

        Returns what to tell.
        """
        middle = len(places) // 2
        tried_at = dict.fromkeys((*places[middle:], *places[:middle], 1, midway(whole.places)))
        left = [self.left_at(place) for place in tried_at]
        found = {entry: None for one in left for entry in entries_in(contents_of(one.checkpoint))}
        if not found:
            if any(one.has_stored for one in left):
                return "its checkpoints are empty: what it has done is in the store"
            raise ContractError("its checkpoints are empty: nothing to go on from")
        tried = [list(found)[index - 1] for index in spread(len(found), num_entries)]
        for entry in tried:
            for how in WAYS:
                if how == LEFT_OUT and entry.keys and isinstance(entry.keys[-1], int):
                    continue  # a shorter list may be what was saved a step before
                if not any(self._matters(whole, one, entry, how) for one in left):
                    raise ContractError(
                        f"it makes no difference when {entry} in its checkpoints is {how}: leave "
                        "it out, or use it"
                    )
        of = f" ({len(tried)} of {len(found)} were tried)" if len(tried) < len(found) else ""
        return f"each entry of its checkpoints matters: {_listed(tried)}{of}"

    def _matters(self, whole: Whole, left: Trial, entry: Entry, how: str) -> bool:
        """Whether a run fails or ends differently when `entry` is altered before it is resumed."""
        contents = contents_of(left.checkpoint)
        if entry not in entries_in(contents):
            return False  # a checkpoint of another place holds it
        patience_s = max(10.0, 5 * whole.took_s)
        for changed in altered(contents, entry, how):
            with left.with_checkpoint(changed, patience_s) as copy:
                with suppress(ContractError):  # it hangs, or says other metrics
                    ended = copy.attempt()
                    if completed(ended) and not whole.facts.difference(copy.facts(ended)):
                        continue
                return True
        return False


def _require_completed(ended: Ended, how: str) -> None:
    if not completed(ended):
        raise ContractError(f"{how}, it does not come to its end: {_why(ended)}")


def _require_stopped(ended: Ended, end: str) -> None:
    place = end.partition("@")[2]
    if completed(ended):
        raise ContractError(
            f"asked to leave at its place {place}, it goes on to its end: let Stopped, which "
            "context.checkpoint raises, pass"
        )
    if ended.result is None or ended.result.outcome != Outcome.STOPPED:
        raise ContractError(f"asked to leave at its place {place}, it fails: {_why(ended)}")


def _check_resumed(ended: Ended, how: str) -> None:
    if ended.resumed_from is None and completed(ended):
        raise ContractError(f"{how}, it begins again: call context.restore() and go on from there")


def _require_equal(whole: Facts, other: Facts, how: str) -> None:
    difference = whole.difference(other)
    if difference:
        raise ContractError(f"{how}, it ends differently: {difference}")


def _why(ended: Ended) -> str:
    if ended.result is None:
        return f"its process ended; it last printed: {ended.last_lines}"
    return ended.result.error or ended.result.why or ended.result.outcome


def midway(steps: Sequence[int]) -> int:
    """The first place (from 1) of the step in the middle, of the `steps` that places are at."""
    first: dict[int, int] = {}
    for place, step in enumerate(steps, start=1):
        first.setdefault(step, place)
    return list(first.values())[len(first) // 2]


def spread(number: int, wanted: int) -> list[int]:
    """Up to `wanted` of the numbers 1 ... `number`, the first and the last among them."""
    if number <= wanted:
        return list(range(1, number + 1))
    if wanted < 2:
        return [(number + 1) // 2] * wanted
    return [1 + round(i * (number - 1) / (wanted - 1)) for i in range(wanted)]


def _listed(entries: Sequence[Entry]) -> str:
    shown = [str(entry) for entry in entries[:6]]
    return ", ".join(shown) + (f" and {len(entries) - 6} more" if len(entries) > 6 else "")
