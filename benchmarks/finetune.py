"""The job ``finetune`` with everything on against a plain training loop doing the same steps.

The job runs on a worker's own context: events, checkpoints, stop requests, keyed order and
augmentation, validation.  The two take turns after every batch, in one process, so that whatever
slows the machine down falls on both alike.  Speed is that of training with its validations; what
starting and concluding a run costs is shown beside it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cases import CASES, HEAD_LR_FACTOR, LR, Case, network_of, params_of
from benchmarks.cost import Cost
from benchmarks.figures import Figure, Goal
from benchmarks.timed_job import Stopwatch, new_context, timed_run
from ftd.config import Checkpoints
from jobs import records
from jobs.finetune import Finetune, FinetuneParams

if TYPE_CHECKING:
    from benchmarks.plain_loop import PlainLoop, Split

# The default.  As the two take turns, half of this time is the job's own: checkpoints come twice as
# often as they would.  A round is a little longer than this, and has one.
CHECKPOINT_EVERY_S = Checkpoints().every_s


@dataclass(frozen=True)
class Size:
    """How much is measured: training and validation images per class, rounds."""

    cases: tuple[Case, ...] = CASES
    per_class: int = 160
    val_per_class: int = 50
    repeats: int = 3


SMALL = Size(
    cases=(Case("efficientnet_lite0", "FT(1-last-1)R(last)", "none", "digits", 16, epochs=2),),
    per_class=4,
    val_per_class=2,
    repeats=1,
)


def measure(size: Size) -> list[Figure]:
    """The job's speed as a share of the plain loop's, in CPU and in wall-clock time."""
    figures = []
    for case in size.cases:
        with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
            contest = _Contest(case, size, Path(folder))
            figures += _figures(case, [contest.round() for _ in range(size.repeats)])
    return figures


@dataclass(frozen=True)
class _Round:
    """What training cost the job and the plain loop, and what the rest of the job cost."""

    job: Cost
    plain: Cost
    job_rest: Cost


def _figures(case: Case, rounds: list[_Round]) -> list[Figure]:
    goal = Goal(0.97, at_least=True)
    cpu = [one.plain.cpu_s / one.job.cpu_s for one in rounds]
    wall = [one.plain.wall_s / one.job.wall_s for one in rounds]
    return [
        Figure(f"{case.name}: speed (CPU)", "x", cpu, goal),
        Figure(f"{case.name}: speed (wall)", "x", wall, goal),
        Figure(f"{case.name}: training (CPU)", "s", [one.job.cpu_s for one in rounds]),
        Figure(f"{case.name}: start and end (CPU)", "s", [one.job_rest.cpu_s for one in rounds]),
    ]


class _Contest:
    """The job and the plain loop on the same images."""

    def __init__(self, case: Case, size: Size, root: Path) -> None:
        import torch

        torch.set_num_threads(1)  # as many as the job is given
        self._case = case
        self._params = params_of(case, size.per_class, size.val_per_class)
        self._root = root
        self._num_attempts = 0
        self._train, self._val = self._splits()

    def round(self) -> _Round:
        """Both once, in turns."""
        plain = _PlainTurns(self._plain_loop(), self._train, self._val)
        job = timed_run(*self._attempt(), turn=plain.turn)
        while not plain.is_over:
            plain.turn()
        return _Round(job.training, plain.training.total, job.whole.total - job.training)

    def _attempt(self) -> tuple[Path, Path, FinetuneParams, float]:
        self._num_attempts += 1
        directory = self._root / f"attempt{self._num_attempts}"
        return directory, self._root / "store", self._params, CHECKPOINT_EVERY_S

    def _splits(self) -> tuple[Split, Split]:
        """Training and validation images as the job decodes, splits and chooses them."""
        import numpy as np

        from benchmarks.plain_loop import Split
        from jobs.data.prepare import prepared

        context = new_context(*self._attempt(), turn=lambda: None)
        context.whole.start()
        interpolation = records.preprocessing(self._case.model).interpolation
        source = Finetune().inputs(self._params)["target"]
        data = prepared(self._params.target, source, interpolation, context, None, ())
        context.close()
        train, val = (
            Split(
                np.stack([data.images.pixels(index) for index in indices.tolist()]),
                data.listing.labels[indices],
            )
            for indices in (data.splits.train, data.splits.val)
        )
        return train, val

    def _plain_loop(self) -> PlainLoop:
        import torch

        from benchmarks.plain_loop import PlainLoop, Recipe
        from jobs.measure.evaluate import BATCH_SIZE

        wanted = records.preprocessing(self._case.model)
        recipe = Recipe(
            head=self._case.head,
            frozen=self._case.frozen,
            # depthwise convolutions compute faster channels-last on a CPU, others hardly
            layout=torch.channels_last if self._case.has_depthwise else torch.contiguous_format,
            epochs=self._case.epochs,
            batch_size=self._params.train.batch_size,
            eval_batch_size=BATCH_SIZE["cpu"],
            lr=LR,
            head_lr=LR * HEAD_LR_FACTOR,
            mean=wanted.mean,
            std=wanted.std,
        )
        num_classes = int(self._train.labels.max()) + 1
        return PlainLoop(network_of(self._case, num_classes), recipe)


class _PlainTurns:
    """The plain loop, one batch per turn; the first step is not counted, as with the job."""

    def __init__(self, loop: PlainLoop, train: Split, val: Split) -> None:
        self._batches = loop.train(train, val)
        self._num_turns = 0
        self.training = Stopwatch()
        self.is_over = False

    def turn(self) -> None:
        """Train or validate on one batch, if there is one left."""
        import torch

        if self.is_over:
            return
        mode = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("default")  # the job's setting is not the loop's
        self._num_turns += 1
        watch = self.training if self._num_turns > 1 else Stopwatch()
        watch.start()
        self.is_over = next(self._batches, "over") == "over"
        watch.stop()
        torch.set_deterministic_debug_mode(mode)
