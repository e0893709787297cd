"""One retrieval from images to metrics: who asks, descriptors, rankings."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ftd.job import Completed, Context, Input
from jobs.data.classes import with_classes
from jobs.data.datasets import listing_of
from jobs.data.images import Images, decoded
from jobs.data.keyed import Indices
from jobs.data.prepare import prepared
from jobs.distances.asking import (
    Asking,
    Entries,
    by_content,
    from_manifest,
    within_classes,
    within_views,
)
from jobs.distances.descriptors import Descriptors, Vectors, random_views
from jobs.distances.patches import patch_distances, patch_views
from jobs.distances.ranked import Ranked
from jobs.features.backbone import backbone
from jobs.features.fingerprint import fingerprint, version
from jobs.features.views import ORIGINAL, View
from jobs.params.retrieval import RetrievalParams

TABLE = "retrieved.csv"
Progress = Callable[[int, int], None]
NUM_LISTED = 10  # references per query


@dataclass(frozen=True)
class _Scene:
    """The images, who asks, and in which views each side is seen (one after the other, or all)."""

    images: Images
    train: Indices
    asking: Asking
    query_views: tuple[View, ...]
    reference_views: tuple[View, ...]
    together: bool  # all views of an entry describe it: patches


def retrieved(params: RetrievalParams, source: Input, context: Context) -> Completed:
    """The resolved retrieval on images read from `source`.

    It can be left at any image of a pass and between queries, and then begins again: what took
    long is in the store.
    """
    libraries = ("numpy", "scipy")  # of the PCA
    numerics = {
        **fingerprint(context),
        **{name: version(name) for name in libraries},
    }
    context.fingerprint(numerics)
    context.restore()

    def progress(what: str, done: int, total: int) -> None:
        context.progress(0, 1, **{what: f"{done}/{total}"})
        context.checkpoint(0, dict)

    scene = _scene(params, source, context, partial(progress, "decoding"))
    asking = scene.asking
    asking.require_answers(scene.images)
    crop_size = params.target.crop_size or params.target.decode_size
    descriptors = Descriptors(
        backbone(params.model, context), scene.images, crop_size, params.features,
        params.normalise, context, partial(progress, "features"),
    )  # fmt: skip
    if params.normalise.pca is not None:
        on_train = params.normalise.fit == "train"
        fit_on = scene.train if on_train else np.unique(asking.references.samples)
        views = (ORIGINAL,) if on_train and not scene.together else scene.reference_views
        descriptors.fit(by_content(scene.images, fit_on), views, numerics)
        context.note("fitted", what="pca", on=params.normalise.fit, num_images=len(fit_on))
    references = _described(descriptors, asking.references, scene.reference_views, scene.together)
    same = asking.queries is asking.references
    queries = (
        references
        if same
        else _described(descriptors, asking.queries, scene.query_views, scene.together)
    )
    found = []
    for query, distances in enumerate(patch_distances(queries, references)):
        wanted, counted = asking.wanted(query), asking.counted(query)
        found.append(Ranked.of(distances, wanted, counted, params.recall_at))
        progress("queries", query + 1, len(queries))
    return _conclude(params, scene, found, references.shape[2], context)


def _scene(params: RetrievalParams, source: Input, context: Context, progress: Progress) -> _Scene:
    """Who asks whom, in which views."""
    seeds, target = context.seeds, params.target
    interpolation = params.model.preprocessing.interpolation
    none = np.empty(0, np.int64)
    query_views: tuple[View, ...] = (ORIGINAL,)
    reference_views = query_views
    if params.patches is not None:
        query_views = patch_views(params.patches.query_levels)
        reference_views = patch_views(params.patches.reference_levels)
    together = params.patches is not None
    if params.roles:
        listing, members = with_classes(listing_of(target), target.classes, seeds["classes"])
        images = decoded(
            listing, context.verified(source), target.decode_size, interpolation,
            store=context.store, threads=context.threads, progress=progress, wanted=members,
            skip_unreadable=target.corrupt == "skip",
        )  # fmt: skip
        members = np.setdiff1d(members, np.array(list(images.unreadable), np.int64))
        asking = from_manifest(images, members, Path(target.file or ""))
        return _Scene(images, none, asking, query_views, reference_views, together)
    data = prepared(target, source, interpolation, context, None, ())
    images, splits = data.images, data.splits
    if params.queries is not None:
        asking = within_classes(images, splits.test, params.queries.per_class, seeds["split"])
        return _Scene(images, splits.train, asking, query_views, reference_views, together)
    assert params.instances is not None, "one of three"
    views = random_views(params.instances, images, seeds["augment"])
    return _Scene(
        images, splits.train, within_views(images, splits.test, len(views)), views, views, False
    )


def _described(
    descriptors: Descriptors, entries: Entries, views: Sequence[View], together: bool
) -> Vectors:
    """The descriptors of entries, float64 (N, patches, D)."""
    if together or len(views) == 1:
        return descriptors.of(entries.samples, views).astype(np.float64)
    found: Vectors | None = None
    for number, view in enumerate(views):
        rows = np.flatnonzero(entries.views == number)
        some = descriptors.of(entries.samples[rows], [view])
        if found is None:
            found = np.empty((len(entries), *some.shape[1:]))
        found[rows] = some
    assert found is not None, "there is at least one view"
    return found


def _conclude(
    params: RetrievalParams,
    scene: _Scene,
    found: Sequence[Ranked],
    num_dims: int,
    context: Context,
) -> Completed:
    """Means over queries; the first answers of each are kept."""
    asking = scene.asking
    metrics = {
        "data/num_queries": float(len(found)),
        "data/num_references": float(len(asking.references)),
        "data/num_dims": float(num_dims),
        "test/map": float(np.mean([one.average_precision for one in found])),
    }
    for place, k in enumerate(params.recall_at):
        metrics[f"test/recall_at_{k}"] = float(np.mean([one.recall[place] for one in found]))
        metrics[f"test/hit_at_{k}"] = float(np.mean([one.hit[place] for one in found]))
    for name, value in metrics.items():
        context.metric(name, value, 1)
    context.artifact(TABLE, lambda path: _write(path, scene, found))
    digest = hashlib.sha256()
    for one in found:
        digest.update(np.float64(one.average_precision).tobytes() + one.nearest.tobytes())
    return Completed(metrics, digest.hexdigest(), num_steps=1)


def _write(path: Path, scene: _Scene, found: Sequence[Ranked]) -> None:
    """A line per query: its name, view, average precision, and its nearest references, * right."""
    asking, ids = scene.asking, scene.images.listing.ids

    def name(entries: Entries, entry: int) -> str:
        view = int(entries.views[entry])
        several = len(scene.query_views) > 1 and not scene.together
        return ids[int(entries.samples[entry])] + (f"@{view}" if several else "")

    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        nearest = [f"nearest_{place}" for place in range(1, NUM_LISTED + 1)]
        table.writerow(["query", "average_precision", *nearest])
        for query, one in enumerate(found):
            wanted = asking.wanted(query)
            nearest = [
                name(asking.references, entry) + ("*" if wanted[entry] else "")
                for entry in one.nearest[:NUM_LISTED].tolist()
            ]
            table.writerow([name(asking.queries, query), f"{one.average_precision:.6f}", *nearest])
