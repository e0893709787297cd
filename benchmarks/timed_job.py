"""One attempt of ``finetune`` in this process, on a worker's own context, with a stopwatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cost import Cost, spent
from ftd.files import seal_json
from ftd.inputs import fingerprint
from ftd.job import Writer
from ftd.protocol import HEARTBEAT, ORDER, Order
from ftd.seeds import streams
from ftd.worker.context import AttemptContext
from jobs.finetune import Finetune, FinetuneParams


@dataclass
class Stopwatch:
    """What was spent in stretches between :meth:`start` and :meth:`stop`."""

    total: Cost = field(default_factory=lambda: Cost(0.0, 0.0))
    _started: Cost | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin a stretch."""
        self._started = spent()

    def stop(self) -> None:
        """End it."""
        assert self._started is not None, "started before it is stopped"
        self.total += spent() - self._started
        self._started = None


class TimedContext(AttemptContext):
    """A worker's context that gives somebody else a `turn` after every batch, and keeps the time.

    ``whole`` counts everything but those turns, ``training`` what was spent from the end of the
    first step to that of the last validation.
    """

    def __init__(self, directory: Path, order: Order, turn: Callable[[], None]) -> None:
        super().__init__(directory, order)
        self._turn = turn
        self._first_step: Cost | None = None
        self.whole = Stopwatch()
        self.training = Cost(0.0, 0.0)

    def checkpoint(self, step: int, files: Callable[[], Mapping[str, Writer]]) -> None:
        super().checkpoint(step, files)
        self.whole.stop()
        if step == 1 and self._first_step is None:
            self._first_step = self.whole.total
        self._turn()
        self.whole.start()

    def metric(self, name: str, value: float, step: int) -> None:
        super().metric(name, value, step)
        if name.startswith("val/") and self._first_step is not None:
            self.whole.stop()
            self.training = self.whole.total - self._first_step
            self.whole.start()


def timed_run(
    directory: Path,
    store: Path,
    params: FinetuneParams,
    checkpoint_every_s: float,
    turn: Callable[[], None],
) -> TimedContext:
    """Execute a first attempt in `directory`, which is made; the context tells what it took."""
    context = new_context(directory, store, params, checkpoint_every_s, turn)
    context.whole.start()
    Finetune().run(params, context)
    context.close()
    context.whole.stop()
    return context


def new_context(
    directory: Path,
    store: Path,
    params: FinetuneParams,
    checkpoint_every_s: float,
    turn: Callable[[], None],
) -> TimedContext:
    """The context of a first attempt in `directory`, which is made."""
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
        inputs={
            name: {"kind": source.kind, "where": source.where, "fingerprint": fingerprint(source)}
            for name, source in Finetune().inputs(params).items()
        },
        store=str(store),
        allow_downloads=False,
        checkpoint_every_s=checkpoint_every_s,
        checkpoint_every_steps=None,
    )
    seal_json(directory / ORDER, order.as_json())
    return TimedContext(directory, order, turn)
