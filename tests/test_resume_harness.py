"""The resume harness itself: it holds for a sound job and catches each unsound one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ftd.files import read_json
from ftd.job import Checkpoint, Completed, Context, Job, Params, Writer
from ftd.seeds import keyed_hash
from tests.entries import Situation, check_entries
from tests.resume import (
    Case,
    Stop,
    at_random,
    check_ways,
    every_place,
    killed_during_resume,
    run_whole,
    twice_in_a_row,
)

STEPS = 5


def text(content: str) -> Writer:
    """Writes `content`."""

    def write(path: Path) -> None:
        path.write_text(content)

    return write


class NoParams(Params):
    """Nothing to choose."""


class Toy(Job[NoParams]):
    """Adds up keyed numbers, each with the two before it: everything it needs is saved."""

    Params = NoParams

    def run(self, params: NoParams, context: Context) -> Completed:
        """One number per step; the sum is said at each."""
        checkpoint = context.restore()
        state = self.initial() if checkpoint is None else self.restored(checkpoint)
        while state["step"] < STEPS:
            self.advance(state, self.draw(context, state["step"]))
            context.metric("val/sum", state["sum"], state["step"])
            context.checkpoint(state["step"], lambda: self.files(state))
        context.artifact("end", text(json.dumps(state)))
        return Completed({"test/sum": state["sum"]}, f"{state['sum']:064}", state["step"])

    def initial(self) -> dict[str, Any]:
        """Before the first step."""
        return {"step": 0, "sum": 0, "recent": [0, 0], "adds": True, "name": "toy"}

    def draw(self, context: Context, step: int) -> int:
        """A step's number."""
        return keyed_hash(context.seeds["order"], step) % 1000

    def advance(self, state: dict[str, Any], number: int) -> None:
        """One step."""
        before, latest = state["recent"]
        state["sum"] += (before + 2 * latest + 4 * number) * (1 if state["adds"] else -1)
        state |= {"step": state["step"] + 1, "recent": [latest, number], "adds": not state["adds"]}

    def files(self, state: dict[str, Any]) -> Mapping[str, Writer]:
        """Two files, one of them not JSON."""
        rest = {key: value for key, value in state.items() if key != "name"}
        return {"state.json": text(json.dumps(rest)), "name.txt": text(state["name"])}

    def restored(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What was saved."""
        state = read_json(checkpoint.path("state.json"))
        assert state is not None
        return {**state, "name": checkpoint.path("name.txt").read_text()}


class Forgetful(Toy):
    """Counts its steps beside the checkpoint."""

    def __init__(self) -> None:
        self.count = 0

    def run(self, params: NoParams, context: Context) -> Completed:
        """In each process it starts to count anew."""
        self.count = 0
        return super().run(params, context)

    def draw(self, context: Context, step: int) -> int:
        """By the count, not by the step."""
        self.count += 1
        return super().draw(context, self.count)


class Replaying(Toy):
    """Reports a number that another attempt reports differently."""

    def run(self, params: NoParams, context: Context) -> Completed:
        """The first thing it says is how far it is, as of the last step."""
        checkpoint = context.restore()
        context.metric("val/resumed", float(checkpoint is not None), STEPS)
        return super().run(params, context)


class Littering(Toy):
    """Leaves a file that tells of the interruption."""

    def run(self, params: NoParams, context: Context) -> Completed:
        """Keeps whether it was resumed."""
        context.artifact("resumed", text(str(context.restore() is not None)))
        return super().run(params, context)


class Hoarding(Toy):
    """Saves what nothing depends on: a leaf that must be there, and a file that need not."""

    def files(self, state: dict[str, Any]) -> Mapping[str, Writer]:
        """One leaf and one file too many."""
        return {**super().files({**state, "useless": 1}), "log.txt": text("x")}

    def restored(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Insists on its useless leaf."""
        state = super().restored(checkpoint)
        del state["useless"]
        return state


def case_of(job: Toy, root: Path) -> Case:
    """The job's case."""
    return Case(job, NoParams(), root / "store")


def test_a_sound_job_holds(tmp_path: Path) -> None:
    """Everything the harness does to a job that saves all it needs leaves no trace."""
    case = case_of(Toy(), tmp_path)
    whole = run_whole(case, tmp_path / "whole")
    assert whole.places == (1, 2, 3, 4, 5)
    places = range(1, STEPS + 1)
    for ways in (
        every_place(whole),
        twice_in_a_row(places),
        killed_during_resume(places),
        at_random(whole, seed=1, num_ways=50),
    ):
        check_ways(case, whole, tmp_path / "ways", ways)
    assert check_entries([Situation(case, whole, 2)], tmp_path / "entries") == 6


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (Forgetful(), "state .* became"),
        (Replaying(), "val/resumed of step 5 was 0.0, then 1.0"),
        (Littering(), "artifact resumed"),
    ],
)
def test_state_beside_the_checkpoint_is_caught(job: Toy, says: str, tmp_path: Path) -> None:
    """A job whose outcome depends on having been interrupted does not get through."""
    case = case_of(job, tmp_path)
    whole = run_whole(case, tmp_path / "whole")
    assert not whole.outcome.difference(run_whole(case, tmp_path / "again").outcome)
    with pytest.raises(AssertionError, match=says):
        check_ways(case, whole, tmp_path / "ways", [[Stop(STEPS - 1)]])


def test_a_useless_entry_is_caught(tmp_path: Path) -> None:
    """What may be anything, or may be missing, is named."""
    case = case_of(Hoarding(), tmp_path)
    whole = run_whole(case, tmp_path / "whole")
    with pytest.raises(AssertionError) as caught:
        check_entries([Situation(case, whole, 2)], tmp_path / "entries")
    assert str(caught.value) == (
        "it makes no difference when log.txt is left out, log.txt is changed, "
        "state.json:useless is changed"
    )


def test_a_place_that_is_not_there_is_no_evidence(tmp_path: Path) -> None:
    """A run that was never interrupted passes no check of interruptions."""
    case = case_of(Toy(), tmp_path)
    whole = run_whole(case, tmp_path / "whole")
    with pytest.raises(AssertionError, match="no place"):
        check_ways(case, whole, tmp_path / "ways", [[Stop(STEPS + 1)]])
    with pytest.raises(AssertionError, match="no way was tried"):
        check_ways(case, whole, tmp_path / "ways", [])
    with pytest.raises(AssertionError, match="no place"):
        check_entries([Situation(case, whole, STEPS + 1)], tmp_path / "entries")
