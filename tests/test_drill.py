"""The rehearsal job: exact resumes, made-up scores and failures as asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftd.errors import DataError
from ftd.files import read_json
from ftd.job import Completed, Stopped
from ftd.seeds import streams
from jobs.drill import Drill, DrillParams
from tests.context import FolderContext
from tests.entries import Situation, check_entries
from tests.resume import (
    Case,
    at_random,
    check_ways,
    every_place,
    killed_during_resume,
    run_whole,
    twice_in_a_row,
)

ROOT = Path(__file__).parent.parent


def finished(params: DrillParams, root: Path) -> tuple[Completed, dict[tuple[str, int], float]]:
    """An uninterrupted run."""
    context = FolderContext(root)
    return Drill().run(params, context), context.metrics


@settings(max_examples=25)
@given(
    steps=st.integers(1, 6),
    seed=st.integers(0, 1 << 32),
    width=st.integers(1, 4),
    metric_every=st.integers(1, 3),
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path_factory: pytest.TempPathFactory,
    steps: int,
    seed: int,
    width: int,
    metric_every: int,
) -> None:
    """Leaving and dying anywhere, any number of times, changes neither state nor metrics."""
    root = tmp_path_factory.mktemp("drill")
    params = DrillParams(steps=steps, width=width, metric_every=metric_every)
    case = Case(Drill(), params, root / "store")
    whole = run_whole(case, root / "whole")
    check_ways(case, whole, root / "ways", at_random(whole, seed, num_ways=2))


def test_it_can_be_left_at_every_place(tmp_path: Path) -> None:
    """At each place, again without having come further, and killed while it resumes."""
    case = Case(Drill(), DrillParams(steps=6), tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    places = range(1, len(whole.places) + 1)
    for ways in (every_place(whole), twice_in_a_row(places), killed_during_resume(places)):
        check_ways(case, whole, tmp_path / "ways", ways)


def test_every_entry_of_a_checkpoint_matters(tmp_path: Path) -> None:
    """The step and each number of the state."""
    case = Case(Drill(), DrillParams(steps=6, width=3), tmp_path / "store")
    situation = Situation(case, run_whole(case, tmp_path / "whole"), place=3)
    assert check_entries([situation], tmp_path / "entries") == 4


def test_the_state_depends_on_seeds_and_steps(tmp_path: Path) -> None:
    """Another replicate, step count or width is another state; the score's level is not."""
    digests = {
        Drill().run(params, FolderContext(tmp_path, seeds=streams(1, replicate))).state_sha256
        for params, replicate in [
            (DrillParams(), 0),
            (DrillParams(), 1),
            (DrillParams(steps=9), 0),
            (DrillParams(width=3), 0),
            (DrillParams(score=9), 0),
        ]
    }
    assert len(digests) == 4


def test_scores_lie_where_they_were_ordered(tmp_path: Path) -> None:
    """The score is as asked, give or take the noise, and shared noise cancels in differences."""
    scores = {
        (score, replicate): Drill()
        .run(
            DrillParams(score=score, noise=0.1),
            FolderContext(tmp_path, seeds=streams(1, replicate)),
        )
        .metrics["test/score"]
        for score in (0.2, 0.6)
        for replicate in range(4)
    }
    assert all(abs(found - score) <= 0.1 for (score, _), found in scores.items())
    assert len(set(scores.values())) == 8
    for replicate in range(4):
        assert scores[0.6, replicate] - scores[0.2, replicate] == pytest.approx(0.4)


def test_metrics_progress_and_artifact_are_reported(tmp_path: Path) -> None:
    """Validation scores appear every few steps, the test score and the state at the end."""
    context = FolderContext(tmp_path)
    Drill().run(DrillParams(steps=5, metric_every=2), context)
    assert sorted(context.metrics) == [("test/score", 5), ("val/score", 2), ("val/score", 4)]
    assert [shown["step"] for shown in context.shown] == [1, 2, 3, 4, 5]
    state = read_json(tmp_path / "artifacts" / "state.json")
    assert state is not None
    assert state["step"] == 5


@pytest.mark.parametrize(
    ("how", "error"), [("error", RuntimeError), ("refuse", DataError), ("memory", MemoryError)]
)
def test_it_fails_as_asked(tmp_path: Path, how: str, error: type[Exception]) -> None:
    """The asked kind of failure comes before the asked step."""
    params = DrillParams.model_validate({"steps": 5, "fail_at_step": 3, "fail_with": how})
    context = FolderContext(tmp_path)
    with pytest.raises(error, match="step 3"):
        Drill().run(params, context)
    assert context.places == [1, 2, 3]


def test_a_crash_is_a_real_kill(tmp_path: Path) -> None:
    """`crash` ends the process by SIGKILL."""
    program = (
        "import pathlib, jobs.drill as d; from tests.context import FolderContext\n"
        "d.Drill().run(d.DrillParams(fail_at_step=1, fail_with='crash'), "
        f"FolderContext(pathlib.Path({str(tmp_path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL


def test_failing_once_is_over_after_a_resume(tmp_path: Path) -> None:
    """With `fail_once`, an attempt that resumes from a checkpoint goes through."""
    params = DrillParams(steps=4, fail_at_step=2, fail_once=True)
    with pytest.raises(RuntimeError):
        Drill().run(params, FolderContext(tmp_path))
    with pytest.raises(Stopped):
        Drill().run(params, FolderContext(tmp_path, stop_at=1))
    result = Drill().run(params, FolderContext(tmp_path))
    (tmp_path / "whole").mkdir()
    expected, _ = finished(DrillParams(steps=4), tmp_path / "whole")
    assert result.state_sha256 == expected.state_sha256
