"""A job of one's own: the mean of the weights of several short descents ("a model soup").

Minimises ``|w - target|^2`` from several starting points and averages the ends.  It needs nothing
but the standard library, so that it shows the interface and runs anywhere; a job that trains a
network imports torch inside `run`, never at the top of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pydantic import Field

from ftd.job import Completed, Context, Job, Params, Writer
from ftd.seeds import keyed_hash

DIMENSIONS = 4
TARGET = [1.0, -2.0, 0.5, 3.0]


class SoupParams(Params):
    """What a spec may say."""

    ingredients: int = Field(3, ge=1, description="Descents to average.")
    steps: int = Field(20, ge=1, description="Steps of each descent.")
    lr: float = Field(0.1, gt=0, lt=1, description="Step size.")


class Soup(Job[SoupParams]):
    """Descend from several points, one step of all of them at a time; average."""

    Params = SoupParams
    version = 1  # raise it when the same parameters give other results

    def primary_metric(self, params: SoupParams) -> str:
        """What summaries compare first."""
        return "test/error"

    def run(self, params: SoupParams, context: Context) -> Completed:
        """A pure function of (params, seeds, checkpoint)."""
        context.fingerprint({"soup": self.version})
        checkpoint = context.restore()
        if checkpoint is None:
            step, points = 0, _starts(params.ingredients, context.seeds["init"])
        else:
            step, points = _read(checkpoint.path("points.json"))
        while step < params.steps:
            points = [_descended(point, params.lr) for point in points]
            step += 1
            context.metric("val/error", _error(_mean(points)), step)
            context.progress(step, params.steps)
            context.checkpoint(step, partial(_files, step, points))
        soup = _mean(points)
        context.metric("test/error", _error(soup), step)
        context.artifact("soup.json", _writer(soup))
        digest = hashlib.sha256(json.dumps(soup).encode()).hexdigest()
        return Completed({"test/error": _error(soup)}, digest, step)


def _starts(number: int, seed: int) -> list[list[float]]:
    """Starting points: each number is keyed by what it is for, not by the order of drawing."""
    return [
        [keyed_hash(seed, point, axis) / 2**62 - 1 for axis in range(DIMENSIONS)]
        for point in range(number)
    ]


def _descended(point: list[float], lr: float) -> list[float]:
    return [w - 2 * lr * (w - t) for w, t in zip(point, TARGET, strict=True)]


def _mean(points: list[list[float]]) -> list[float]:
    return [sum(axis) / len(points) for axis in zip(*points, strict=True)]


def _error(point: list[float]) -> float:
    return sum((w - t) ** 2 for w, t in zip(point, TARGET, strict=True))


def _files(step: int, points: list[list[float]]) -> Mapping[str, Writer]:
    """All that a resumed run needs, and nothing else."""
    return {"points.json": _writer([step, points])}


def _writer(value: object) -> Writer:
    def write(path: Path) -> None:
        path.write_text(json.dumps(value))

    return write


def _read(path: Path) -> tuple[int, list[list[float]]]:
    step, points = json.loads(path.read_text())
    return step, points
