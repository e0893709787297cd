"""One attempt of ``finetune`` in this process, on a worker's own context, with a stopwatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.cost import Cost, spent
from ftd.job import Writer
from ftd.protocol import HEARTBEAT, Order
from ftd.seeds import streams
from ftd.worker.context import AttemptContext
from jobs.finetune import Finetune, FinetuneParams


class TimedContext(AttemptContext):
    """A worker's context that also notes when training began and when it ended."""

    def __init__(self, directory: Path, order: Order) -> None:
        super().__init__(directory, order)
        self._first_step: Cost | None = None
        self._validated: Cost | None = None

    def checkpoint(self, step: int, files: Callable[[], Mapping[str, Writer]]) -> None:
        super().checkpoint(step, files)
        if step == 1 and self._first_step is None:
            self._first_step = spent()

    def metric(self, name: str, value: float, step: int) -> None:
        super().metric(name, value, step)
        if name.startswith("val/"):
            self._validated = spent()

    def training(self) -> Cost:
        """What was spent from the end of the first step to that of the last validation."""
        assert self._first_step is not None and self._validated is not None, "a run that validates"
        return self._validated - self._first_step


def new_context(
    directory: Path, store: Path, params: FinetuneParams, checkpoint_every_s: float
) -> TimedContext:
    """The context of a first attempt below `directory`, which is made."""
    directory.mkdir(parents=True)
    (directory / HEARTBEAT).touch()
    order = Order(
        run_id=1,
        number=1,
        key="benchmark",
        job="finetune",
        job_version=Finetune.version,
        params=params.model_dump(mode="json"),
        seeds=streams(1, 0),
        device_kind="cpu",
        device_id="cpu:0",
        numerics="exact",
        threads=1,
        inputs={},
        store=str(store),
        allow_downloads=False,
        checkpoint_every_s=checkpoint_every_s,
        checkpoint_every_steps=None,
    )
    return TimedContext(directory, order)
