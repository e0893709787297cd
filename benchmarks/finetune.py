"""The job ``finetune`` with everything on against a plain training loop doing the same steps.

The job runs on a worker's own context: events, checkpoints, stop requests, keyed order and
augmentation, validation, artifacts.  Both run in turn in this process.  Speed is that of training
with its validations; what starting and concluding a run costs is shown beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cost import Cost, alternated, spent
from benchmarks.figures import Figure, Goal
from benchmarks.timed_job import new_context
from jobs import sources
from jobs.finetune import Finetune, FinetuneParams

if TYPE_CHECKING:
    from torch import nn

    from benchmarks.plain_loop import Split

CHECKPOINT_EVERY_S = 15.0  # four times as often as the default, since a round is shorter than that
LR, HEAD_LR_FACTOR = 0.01, 10.0


@dataclass(frozen=True)
class Case:
    """A network, what is trained of it, and for how long."""

    model: str
    layers: str
    weights: str
    decode_size: int
    epochs: int

    @property
    def name(self) -> str:
        """The case as people read it."""
        return f"{self.model} {self.layers} {self.decode_size} px"

    @property
    def frozen(self) -> bool:
        """Whether all but the classifier is frozen."""
        return self.layers.startswith("F(")


CASES = (
    Case("efficientnet_lite0", "FT(1-last-1)R(last)", "imagenet", 128, epochs=4),
    Case("efficientnet_lite0", "F(1-last-1)R(last)", "imagenet", 128, epochs=12),
    Case("resnet18", "FT(1-last-1)R(last)", "none", 64, epochs=8),
)


@dataclass(frozen=True)
class Size:
    """How much is measured: training and validation images per class, rounds."""

    cases: tuple[Case, ...] = CASES
    per_class: int = 160
    val_per_class: int = 50
    repeats: int = 5


SMALL = Size(
    cases=(Case("efficientnet_lite0", "FT(1-last-1)R(last)", "none", 32, epochs=1),),
    per_class=16,
    val_per_class=8,
    repeats=1,
)


def measure(size: Size) -> list[Figure]:
    """The job's speed as a share of the plain loop's, in CPU and in wall-clock time."""
    figures = []
    for case in size.cases:
        with tempfile.TemporaryDirectory(prefix="ftd-bench-") as folder:
            figures += _figures(case, _Contest(case, size, Path(folder)).rounds())
    return figures


@dataclass(frozen=True)
class _Round:
    """What the job and the plain loop spent on training, and on everything."""

    job: Cost
    plain: Cost
    job_whole: Cost
    plain_whole: Cost


def _figures(case: Case, rounds: list[_Round]) -> list[Figure]:
    goal = Goal(0.97, at_least=True)
    speed_cpu = [one.plain.cpu_s / one.job.cpu_s for one in rounds]
    speed_wall = [one.plain.wall_s / one.job.wall_s for one in rounds]
    rest = [one.job_whole.cpu_s - one.job.cpu_s for one in rounds]
    plain_rest = [one.plain_whole.cpu_s - one.plain.cpu_s for one in rounds]
    return [
        Figure(f"{case.name}: speed (CPU)", "x", speed_cpu, goal),
        Figure(f"{case.name}: speed (wall)", "x", speed_wall, goal),
        Figure(f"{case.name}: training (CPU)", "s", [one.job.cpu_s for one in rounds]),
        Figure(f"{case.name}: start and end (CPU)", "s", rest),
        Figure(f"{case.name}: the plain loop's (CPU)", "s", plain_rest),
    ]


class _Contest:
    """The job and the plain loop on the same images, in turn."""

    def __init__(self, case: Case, size: Size, root: Path) -> None:
        self._case = case
        self._params = _params(case, size)
        self._repeats = size.repeats
        self._root = root
        self._num_attempts = 0
        self._trained: dict[str, list[Cost]] = {"job": [], "plain": []}
        self._plain = _plain(case, self._params, *self._splits(), save_to=root / "plain.pt")

    def rounds(self) -> list[_Round]:
        """Warm up, then measure."""
        subjects = {"job": self._run_job, "plain": self._run_plain}
        alternated(subjects, 1)
        for costs in self._trained.values():
            costs.clear()
        whole = alternated(subjects, self._repeats)
        trained = self._trained
        rows = zip(trained["job"], trained["plain"], whole["job"], whole["plain"], strict=True)
        return [_Round(*costs) for costs in rows]

    def _run_job(self) -> Cost:
        context = self._context()
        started = spent()
        Finetune().run(self._params, context)
        context.close()
        self._trained["job"].append(context.training())
        return spent() - started

    def _run_plain(self) -> Cost:
        import torch

        torch.use_deterministic_algorithms(False)  # the job's setting, not the loop's
        started = spent()
        self._trained["plain"].append(self._plain())
        return spent() - started

    def _context(self) -> Any:
        self._num_attempts += 1
        directory = self._root / f"attempt{self._num_attempts}"
        return new_context(directory, self._root / "store", self._params, CHECKPOINT_EVERY_S)

    def _splits(self) -> tuple[Split, Split, Split]:
        """The images as the job decodes, splits and chooses them."""
        import numpy as np

        from benchmarks.plain_loop import Split
        from jobs.data.prepare import prepared

        data = prepared(
            self._params.target,
            Finetune().inputs(self._params)["target"],
            sources.preprocessing(self._case.model).interpolation,
            self._context(),
            None,
            (),
        )
        images, splits = data.images, data.splits
        train, val, test = (
            Split(
                np.stack([images.pixels(index) for index in indices.tolist()]),
                data.listing.labels[indices],
            )
            for indices in (splits.train, splits.val, splits.test)
        )
        return train, val, test


def _plain(
    case: Case, params: FinetuneParams, train: Split, val: Split, test: Split, *, save_to: Path
) -> Callable[[], Cost]:
    import torch

    from benchmarks.plain_loop import PlainLoop, Recipe
    from jobs.measure.evaluate import BATCH_SIZE

    torch.set_num_threads(1)  # as many as the job is given
    wanted = sources.preprocessing(case.model)
    recipe = Recipe(
        head="fc",
        frozen=case.frozen,
        epochs=case.epochs,
        batch_size=params.train.batch_size,
        eval_batch_size=BATCH_SIZE["cpu"],
        lr=LR,
        head_lr=LR * HEAD_LR_FACTOR,
        mean=wanted.mean,
        std=wanted.std,
    )
    return lambda: PlainLoop(_network(case), recipe).run(train, val, test, save_to)


def _network(case: Case) -> nn.Module:
    """The same network for two classes, without what the job puts into it."""
    if case.model == "efficientnet_lite0":
        from jobs.models.efficientnet_lite import EfficientNetLite0
        from jobs.models.weights import load

        network: nn.Module = EfficientNetLite0(2)
        if case.weights == "imagenet":
            state = load(case.model, "imagenet", allow_downloads=False) or {}
            kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
            network.load_state_dict(kept, strict=False)
        return network
    from torchvision import models

    network = models.get_model(case.model, weights=None, num_classes=2)
    return network


def _params(case: Case, size: Size) -> FinetuneParams:
    given: dict[str, Any] = {
        "model": {"name": case.model, "weights": case.weights},
        "layers": case.layers,
        "target": {
            "dataset": "elpv",
            "decode_size": case.decode_size,
            "per_class": size.per_class,
            "val_per_class": size.val_per_class,
        },
        "train": {
            "epochs": case.epochs,
            "batch_size": 16,
            "lr": LR,
            "head_lr_factor": HEAD_LR_FACTOR,
        },
    }
    return Finetune().resolve(FinetuneParams.model_validate(given), Path("/"))
