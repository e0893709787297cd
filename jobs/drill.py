"""A rehearsal: a job that computes next to nothing, for trying a home before real work goes in.

It takes as long as it is told to, fails in the way it is told to, and evolves a small state by a
formula, so that scheduling, limits, failures and exact resumes can be seen in seconds.  Its scores
are made up: ``score`` scaled by the progress made, plus noise shared by all cells of a replicate.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ftd.errors import DataError
from ftd.files import read_json
from ftd.job import Checkpoint, Completed, Context, Job, Params, Writer
from ftd.seeds import keyed_hash

STATE = "state.json"

Evolve = Callable[[Sequence[int], int, int], list[int]]  # state, seed, step -> the next state


class DrillParams(Params):
    """What the rehearsal plays."""

    steps: int = Field(10, ge=0, description="Number of steps.")
    step_s: float = Field(0.0, ge=0, description="Seconds a step takes.")
    children: int = Field(
        0, ge=0, le=16, description="Helper processes that compute the state, as loaders would."
    )
    width: int = Field(16, ge=1, le=1 << 20, description="Numbers in the state.")
    metric_every: int = Field(1, ge=1, description="Steps between two values of val/score.")
    score: float = Field(0.5, description="What test/score is about.")
    noise: float = Field(0.05, ge=0, description="Half width of the score's noise.")
    fail_at_step: int | None = Field(None, ge=0, description="Fail before this step (0-based).")
    fail_with: Literal["error", "refuse", "memory", "crash"] = Field(
        "error",
        description="error: an exception. refuse: unusable data. memory: out of memory. "
        "crash: SIGKILL.",
    )
    fail_once: bool = Field(
        False, description="Do not fail in an attempt that resumes from a checkpoint."
    )


class Drill(Job[DrillParams]):
    """The rehearsal."""

    Params = DrillParams
    preload = ("jobs.drill",)  # next to nothing, but its workers are forked like those of others
    shares_worker = True

    def identity(self, params: DrillParams) -> Mapping[str, Any]:
        """All parameters; how to fail only where a failure is asked for, never who computes."""
        unused = {"fail_with", "fail_once"} if params.fail_at_step is None else set()
        unused.add("children")
        return params.model_dump(mode="json", exclude=unused)

    def primary_metric(self, params: DrillParams) -> str:
        """The made-up score."""
        return "test/score"

    def run(self, params: DrillParams, context: Context) -> Completed:
        """Evolve the state step by step, failing where asked."""
        with _evolution(params.children) as evolve:
            return self._play(params, context, evolve)

    def _play(self, params: DrillParams, context: Context, evolve: Evolve) -> Completed:
        context.fingerprint({"drill": self.version, "device": context.device})
        restored = context.restore()
        done, state = (0, _initial(params, context)) if restored is None else _saved(restored)
        for step in range(done, params.steps):
            if step == params.fail_at_step and not (params.fail_once and restored is not None):
                _fail(params.fail_with, step)
            time.sleep(params.step_s)
            state = evolve(state, context.seeds["order"], step)
            done = step + 1
            if done % params.metric_every == 0:
                context.metric("val/score", _score(params, state, done), done)
            context.progress(done, params.steps)
            context.checkpoint(done, partial(_files, done, state))
        score = _score(params, state, done)
        context.metric("test/score", score, done)
        context.artifact(STATE, _files(done, state)[STATE])
        return Completed({"val/score": score, "test/score": score}, _digest(state), done)


def _initial(params: DrillParams, context: Context) -> list[int]:
    return [keyed_hash(context.seeds["init"], index) for index in range(params.width)]


@contextmanager
def _evolution(num_children: int) -> Iterator[Evolve]:
    """A way to compute the next state, here or in children that are forked from this process."""
    if not num_children:
        yield lambda state, seed, step: [_number(seed, step, state, i) for i in range(len(state))]
        return
    from concurrent.futures import ProcessPoolExecutor  # 50 ms that planning does not need
    from multiprocessing import get_context

    with ProcessPoolExecutor(num_children, get_context("fork")) as pool:

        def evolve(state: Sequence[int], seed: int, step: int) -> list[int]:
            number = partial(_number, seed, step, state)
            size = -(-len(state) // num_children)
            return list(pool.map(number, range(len(state)), chunksize=size))

        yield evolve


def _number(seed: int, step: int, state: Sequence[int], index: int) -> int:
    """One number of the next state: from its left neighbour and itself."""
    return keyed_hash(seed, step, state[index - 1], state[index])


def _score(params: DrillParams, state: Sequence[int], done: int) -> float:
    """In ``score * progress ± noise``; the noise is read off the state's first number."""
    progress = done / params.steps if params.steps else 1.0
    return params.score * progress + params.noise * (state[0] / 2**62 - 1)


def _digest(state: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _files(step: int, state: Sequence[int]) -> dict[str, Writer]:
    def write(path: Path) -> None:
        path.write_text(json.dumps({"step": step, "state": list(state)}))

    return {STATE: write}


def _saved(checkpoint: Checkpoint) -> tuple[int, list[int]]:
    saved = read_json(checkpoint.path(STATE))
    assert saved is not None, "a checkpoint is sealed and verified"
    return int(saved["step"]), [int(number) for number in saved["state"]]


def _fail(how: str, step: int) -> None:
    if how == "refuse":
        raise DataError(f"refused at step {step}, as asked", fix="Leave out fail_at_step")
    if how == "memory":
        raise MemoryError(f"out of memory at step {step}, as asked")
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError(f"failed at step {step}, as asked")
