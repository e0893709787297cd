"""The job ``probe``: how well a linear classifier, or neighbours, tell classes apart by features.

The network is not trained.  Its features come from the store, or one pass computes those of all
layers; what is fitted sees training images alone, and validation images choose from its grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftd.job import Completed, Context, Input, Job
from jobs import budget as budgets
from jobs import records, sources, targets
from jobs.params.features import resolved
from jobs.params.probe import BackboneParams, ProbeParams


class Probe(Job[ProbeParams]):
    """A solver on a network's features."""

    Params = ProbeParams
    version = 2
    shares_worker = True
    preload = ("jobs.solvers.run",)  # not scikit-learn, which starts threads

    def resolve(self, params: ProbeParams, base: Path) -> ProbeParams:
        """Number the layers, make paths absolute and defaults explicit; refuse what cannot work."""
        target = targets.resolve(params.target, base)
        crop_size = target.crop_size or target.decode_size
        first = _resolved(BackboneParams(model=params.model, features=params.features), base)
        concat = [_resolved(one, base) for one in params.concat]
        for one in (first, *concat):
            records.check_size(one.model.name, crop_size)
        solver = params.solver
        select = solver.select or targets.default_selection(target)
        return params.model_copy(
            update={
                "model": first.model,
                "features": first.features,
                "concat": concat,
                "target": target,
                "solver": solver.model_copy(update={"select": select}),
                "compute_also": [resolved(one, params.model) for one in params.compute_also],
            }
        )

    def labels_used(self, params: ProbeParams) -> str:
        """Training and validation images, as far as the parameters say."""
        return budgets.labels_used(params.target)

    def identity(self, params: ProbeParams) -> Mapping[str, Any]:
        """Resolved parameters less what cannot matter."""
        normalise = params.normalise
        found: dict[str, Any] = {
            "backbones": [
                {**one.model.identity, "features": one.features.model_dump(mode="json")}
                for one in _backbones(params)
            ],
            "target": targets.identity(params.target),
            "train_views": params.train_views,
            "test_views": params.test_views,
            "normalise": normalise.model_dump(
                mode="json", exclude={"whiten"} if normalise.pca is None else set()
            ),
            "solver": params.solver.model_dump(mode="json", exclude=params.solver.unused),
        }
        for name in ("C", "penalty", "k"):  # a grid is a set
            if name in found["solver"]:
                found["solver"][name] = sorted(set(found["solver"][name]))
        return found

    def inputs(self, params: ProbeParams) -> Mapping[str, Input]:
        """The target's images and labels, and what holds the weights."""
        found = dict(targets.inputs(params.target))
        for number, one in enumerate(_backbones(params), start=1):
            for name, source in sources.inputs(one.model.name, one.model.weights).items():
                found[name if number == 1 else f"{name} {number}"] = source
        return found

    def keeps(self, params: ProbeParams) -> tuple[str, ...]:
        """The predictions."""
        return (sources.PREDICTIONS,)

    def primary_metric(self, params: ProbeParams) -> str:
        """What matters most for this kind of target."""
        return f"test/{targets.default_metric(params.target)}"

    def run(self, params: ProbeParams, context: Context) -> Completed:
        """Prepare the images, have the features, fit, choose, test what is chosen."""
        from jobs.solvers.run import run  # numpy

        return run(params, _backbones(params), self.inputs(params)["target"], context)


def _backbones(params: ProbeParams) -> list[BackboneParams]:
    return [BackboneParams(model=params.model, features=params.features), *params.concat]


def _resolved(one: BackboneParams, base: Path) -> BackboneParams:
    model = one.model
    weights = sources.resolve(model.name, model.weights, base)
    return BackboneParams(
        model=model.model_copy(update={"weights": weights}),
        features=resolved(one.features, model),
    )
