"""The job ``distance``: how far a target's images are from a source's, and how well they transfer.

Only training images are looked at, equally many of both sides.  Each measure of each pair is
computed once, whoever asks and whichever side is called the source: the store keeps it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd.errors import DataError, InputError
from ftd.job import Completed, Context, Input, Job
from jobs import records, sources, targets
from jobs.params import features
from jobs.params.distance import OF_LABELS, OF_LAYER, OF_PIXELS, DistanceParams, Measure, compares
from jobs.params.target import TargetParams

if TYPE_CHECKING:
    from jobs.distances.looks import Progress
    from jobs.distances.measures import Measuring
    from jobs.distances.sides import Side

METRICS: Mapping[Measure, str] = {"svm": "svm_accuracy", "cnn": "cnn_accuracy"}


class Distance(Job[DistanceParams]):
    """Distances and transferability of one pair of datasets, for one network."""

    Params = DistanceParams
    version = 1
    shares_worker = True
    preload = ("jobs.data.prepare", "jobs.distances.measures", "jobs.models.build")

    def resolve(self, params: DistanceParams, base: Path) -> DistanceParams:
        """Number the layer, make paths absolute and defaults explicit; refuse what cannot work."""
        model, source = params.model, params.source
        weights = sources.resolve(model.name, model.weights, base)
        target = targets.resolve(params.target, base)
        source = None if source is None else targets.resolve(source, base)
        if _uses_network(params):
            records.check_size(model.name, target.crop_size or target.decode_size)
        if source is not None and source.crop_size != target.crop_size:
            raise InputError(
                f"source and target are shown at {source.crop_size} and {target.crop_size} pixels, "
                "which alone tells them apart",
                where="source.crop_size",
                fix="Give source and target the same decode_size and crop_size",
            )
        return params.model_copy(
            update={
                "model": model.model_copy(update={"weights": weights}),
                "features": features.resolved(params.features, model),
                "source": source,
                "target": target,
            }
        )

    def identity(self, params: DistanceParams) -> Mapping[str, Any]:
        """Resolved parameters less what cannot matter to the measures asked for."""
        model, measures = params.model, params.asked
        wanted = model.preprocessing
        found: dict[str, Any] = {
            "target": targets.identity(params.target),
            "interpolation": wanted.interpolation,
            "measures": sorted(measures),
            "num_images": params.num_images,
            "repeats": params.repeats,
        }
        if _source(params) is not None:
            found["source"] = targets.identity(_source(params) or params.target)
        if _uses_network(params):
            found["model"] = model.name
            found["weights"] = sources.identity(model.name, model.weights)
            found["preprocessing"] = [wanted.mean, wanted.std]
        if set(measures) & set(OF_LAYER):
            found["features"] = params.features.model_dump(mode="json")
        if "cnn" in measures:
            found["cnn"] = params.cnn.model_dump(mode="json")
        return found

    def inputs(self, params: DistanceParams) -> Mapping[str, Input]:
        """The images and labels of both sides, and the file or package that holds the weights."""
        found = dict(targets.inputs(params.target))
        source = _source(params)
        if source is not None:
            for name, read in targets.inputs(source).items():
                found["source" if name == "target" else f"source_{name}"] = read
        if _uses_network(params):
            found |= sources.inputs(params.model.name, params.model.weights)
        return found

    def primary_metric(self, params: DistanceParams) -> str:
        """That of the first measure."""
        first = params.asked[0]
        split = "transfer" if first in OF_LABELS else "distance"
        return f"{split}/{METRICS.get(first, first)}"

    def run(self, params: DistanceParams, context: Context) -> Completed:
        """Choose the images; take every measure from the store, or compute it."""
        from jobs.distances.kept import taken
        from jobs.features.fingerprint import fingerprint

        numerics = fingerprint(context)
        context.fingerprint(numerics)
        context.restore()  # whatever was measured is in the store
        measures = params.asked
        num_done = num_computed = 0

        def progress(done: int, total: int) -> None:
            shown = measures[min(num_done, len(measures) - 1)]
            context.progress(num_done, len(measures), measuring=f"{shown} {done}/{total}")
            context.checkpoint(num_done, dict)

        measuring, metrics = self._measuring(params, context, progress)
        for measure in measures:
            found, is_new = taken(measuring, measure, numerics, context)
            num_computed += is_new
            for name, estimate in found.estimates.items():
                metrics |= {name: estimate.value, f"{name}_std": estimate.std}
            if found.details:
                context.artifact(f"{measure}.json", partial(_write, found.details))
            elif not found.estimates:
                context.note("no proxy", why=f"{params.model.name} has no BatchNorm")
            num_done += 1
            progress(1, 1)
        if not any(name.startswith(("distance/", "transfer/")) for name in metrics):
            raise DataError(
                f"{params.model.name} has no BatchNorm that remembers its source, so no proxy",
                where="measures",
                fix="Name a source",
            )
        context.timing("distance/num_computed", num_computed, num_done)
        for name, value in metrics.items():
            context.metric(name, value, num_done)
        digest = hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()
        return Completed(metrics, digest, num_done)

    def _measuring(
        self, params: DistanceParams, context: Context, progress: Progress
    ) -> tuple[Measuring, dict[str, float]]:
        """The images to compare, and how many there are."""
        from jobs.distances.looks import Looks
        from jobs.distances.measures import Draws, Measuring
        from jobs.distances.sides import limited, paired, shared
        from jobs.features.backbone import backbone

        seeds, read = context.seeds, self.inputs(params)
        interpolation = params.model.preprocessing.interpolation
        whole = _side(params.target, read["target"], interpolation, context)
        target = limited(whole, params.num_images, seeds["subset"])
        metrics = {"data/num_target": float(len(target.indices))}
        pair: tuple[Side, ...] = ()
        source = _source(params)
        if source is not None:
            other = _side(source, read["source"], interpolation, context)
            pair = paired(other, whole, params.num_images, seeds["subset"])
            metrics["data/num_per_side"] = float(len(pair[0].indices))
            metrics["data/num_shared"] = float(shared(other, whole))
        looks = Looks(
            backbone(params.model, context), params.features, (target, *pair), context, progress
        )
        draws = Draws(seeds["subset"], seeds["init"], seeds["order"], params.repeats)
        return Measuring(looks, target, pair, draws, params.cnn), metrics


def _write(details: Mapping[str, float], path: Path) -> None:
    path.write_text(json.dumps(dict(details), indent=1))


def _side(target: TargetParams, read: Input, interpolation: str, context: Context) -> Side:
    from jobs.data.prepare import prepared
    from jobs.distances.sides import training_side

    data = prepared(target, read, interpolation, context, None, ())
    return training_side(data, target.crop_size or target.decode_size, interpolation)


def _source(params: DistanceParams) -> TargetParams | None:
    """The source, where a measure asks for it."""
    return params.source if any(map(compares, params.asked)) else None


def _uses_network(params: DistanceParams) -> bool:
    """Whether a measure asks what the network says."""
    return not set(params.asked) <= set(OF_PIXELS)
