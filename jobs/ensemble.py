"""The job ``ensemble``: finished runs vote, by the mean of the probabilities that they kept.

Nothing is trained and no image is read: the runs' kept predictions of the same test images are
averaged and measured like those of a single network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ftd.errors import InputError
from ftd.job import Completed, Context, Input, Job, Params
from jobs.sources import PREDICTIONS

RunName = Annotated[str, Field(pattern=r"^r?[1-9][0-9]{0,17}$")]


class EnsembleParams(Params):
    """Who votes."""

    runs: list[RunName] = Field(
        min_length=2,
        description="Runs on the same target and test images (r12), each counting the same; those "
        "that are not done yet are waited for.",
    )
    metric: str = Field(
        default="test/top1",
        pattern=r"^[a-z_]+/[a-z0-9_]+$",
        description="The metric that summaries show first.",
    )


class Ensemble(Job[EnsembleParams]):
    """The mean of several runs' predictions."""

    Params = EnsembleParams
    version = 1
    preload = ("jobs.measure.averaging", "jobs.measure.details")
    shares_worker = True

    def resolve(self, params: EnsembleParams, base: Path) -> EnsembleParams:
        """Runs as people write them, in the order of their numbers; none twice."""
        numbers = [int(run.removeprefix("r")) for run in params.runs]
        twice = next((number for number in numbers if numbers.count(number) > 1), None)
        if twice is not None:
            raise InputError(f"r{twice} stands twice", where="runs", fix="Name each run once")
        return params.model_copy(update={"runs": [f"r{number}" for number in sorted(numbers)]})

    def identity(self, params: EnsembleParams) -> Mapping[str, Any]:
        """Nothing besides what the runs are, which :meth:`inputs` tells."""
        return {}

    def inputs(self, params: EnsembleParams) -> Mapping[str, Input]:
        """The runs."""
        return {run: Input("run", run, file=PREDICTIONS) for run in params.runs}

    def keeps(self, params: EnsembleParams) -> tuple[str, ...]:
        """The mean's predictions."""
        return (PREDICTIONS,)

    def primary_metric(self, params: EnsembleParams) -> str:
        """As the spec says."""
        return params.metric

    def run(self, params: EnsembleParams, context: Context) -> Completed:
        """Read, average, measure, keep."""
        import hashlib

        import numpy as np

        from jobs.measure.averaging import averaged
        from jobs.measure.details import keep_predictions
        from jobs.measure.predictions import Predictions
        from jobs.measure.scoring import Scoring, named

        context.fingerprint({"numpy": np.__version__})
        context.restore()
        context.checkpoint(0, dict)
        members = {run: Predictions.read(context.kept(run, PREDICTIONS)) for run in params.runs}
        mean = averaged(members)
        terciles = [np.array(classes, np.int64) for classes in mean.terciles]
        scoring = Scoring(len(mean.class_names), mean.multi_label, terciles)
        metrics: dict[str, float] = {}
        digest = hashlib.sha256()
        for split, found in mean.splits.items():
            if len(found):
                metrics |= named(split, scoring.metrics(found.logits, found.labels))
            digest.update(found.digests.tobytes() + found.logits.tobytes())
        if params.metric not in metrics:
            raise InputError(
                f"these predictions have no {params.metric}",
                where="metric",
                fix=f"Use one of {', '.join(sorted(metrics))}",
            )
        for name, value in metrics.items():
            context.metric(name, value, 1)
        keep_predictions(context, scoring, mean)
        return Completed(metrics, digest.hexdigest(), num_steps=1)
