"""The job ``retrieval``: images ask for others that show the same, and features find them.

Nothing is trained.  Descriptors are a frozen network's features, normalised; references are ranked
by their distance to the query.  Only a PCA is fitted, never on queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftd.errors import DataError
from ftd.job import Completed, Context, Input, Job
from jobs import records, sources, targets
from jobs.manifest import read_manifest
from jobs.params.features import resolved
from jobs.params.retrieval import RetrievalParams

# Of a target whose manifest says who asks; how it would be split does not matter then.
WITHOUT_SPLIT = ("dataset", "classes", "corrupt", "decode_size", "crop_size")


class Retrieval(Job[RetrievalParams]):
    """Retrieval by one layer of one network."""

    Params = RetrievalParams
    version = 1
    shares_worker = True
    preload = ("jobs.distances.retrieved", "jobs.models.build")

    def resolve(self, params: RetrievalParams, base: Path) -> RetrievalParams:
        """Number the layer, make paths absolute and defaults explicit; refuse what cannot work."""
        model = params.model
        weights = sources.resolve(model.name, model.weights, base)
        target = targets.resolve(params.target, base)
        records.check_size(model.name, target.crop_size or target.decode_size)
        if params.roles:
            _check_roles(Path(target.file or ""))
        normalise = params.normalise
        if normalise.pca is not None and normalise.fit is None:
            fit = "train" if params.instances is not None else "reference"
            normalise = normalise.model_copy(update={"fit": fit})
        return params.model_copy(
            update={
                "model": model.model_copy(update={"weights": weights}),
                "features": resolved(params.features, model),
                "target": target,
                "normalise": normalise,
            }
        )

    def identity(self, params: RetrievalParams) -> Mapping[str, Any]:
        """Resolved parameters less what cannot matter."""
        normalise = params.normalise
        target = targets.identity(params.target)
        if params.roles:
            target = {name: target[name] for name in WITHOUT_SPLIT}
        found = params.model_dump(mode="json", include={"features", "queries", "instances"})
        return {
            **found,
            **params.model.identity,
            "target": target,
            "normalise": normalise.model_dump(
                mode="json", exclude={"whiten"} if normalise.pca is None else set()
            ),
            "patches": params.patches and params.patches.model_dump(mode="json"),
            "recall_at": sorted(set(params.recall_at)),
        }

    def inputs(self, params: RetrievalParams) -> Mapping[str, Input]:
        """The images and labels, and the file or package that holds the weights."""
        return {
            **targets.inputs(params.target),
            **sources.inputs(params.model.name, params.model.weights),
        }

    def primary_metric(self, params: RetrievalParams) -> str:
        """Mean average precision."""
        return "test/map"

    def run(self, params: RetrievalParams, context: Context) -> Completed:
        """Have the features, fit the PCA, rank the references of every query."""
        from jobs.distances.retrieved import retrieved  # numpy

        return retrieved(params, self.inputs(params)["target"], context)


def _check_roles(file: Path) -> None:
    manifest = read_manifest(file, multi_label=False)
    if "role" not in manifest.columns:
        raise DataError(
            f"{file} has no column role",
            where="target.file",
            fix="It says query, reference or junk; or give queries or instances",
        )
    for role in ("query", "reference"):
        if not any(row.role == role for row in manifest.rows):
            raise DataError(f"no row of {file} is a {role}", where="target.file")
