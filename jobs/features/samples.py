"""Samples for solvers: rows of features of one or several networks side by side, view by view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ftd.errors import WeightsError
from ftd.job import Context
from jobs.data.images import Images
from jobs.data.keyed import Indices
from jobs.features.backbone import backbone
from jobs.features.extract import Features, features
from jobs.features.shards import Part, Vectors
from jobs.features.views import ORIGINAL, SIXTEEN, View
from jobs.params.features import READ, FeaturesParams
from jobs.params.probe import BackboneParams, NumViews
from jobs.solvers.normalise import unit_length

Looks = Sequence[tuple[Indices, Sequence[View]]]  # which images are looked at in which views


@dataclass(frozen=True)
class Source:
    """What one network says: its features by the name of the view, and the part that counts."""

    features: Mapping[str, Features]
    part: Part


@dataclass(frozen=True)
class Samples:
    """Samples made of `sources` side by side; with `l2` each source's features have length 1."""

    sources: Sequence[Source]
    l2: bool

    @property
    def num_forwards(self) -> int:
        """How many images went through networks in this attempt."""
        return sum(
            found.num_forwards
            for source in self.sources
            for found in {id(one): one for one in source.features.values()}.values()
        )

    def of(self, indices: Indices, view: View) -> Vectors:
        """Float32 (N, D) of the images `indices` of the listing in one view.

        Raises WeightsError when a network's features are not finite.
        """
        beside = []
        for source in self.sources:
            rows = source.features[view.name].rows(*source.part, indices, view)
            if not np.isfinite(rows).all():
                raise WeightsError(
                    f"layer {source.part[0] or READ} gives features that are not finite",
                    where="model.weights",
                    fix="These weights are of a network that diverged: use others",
                )
            beside.append(unit_length(rows) if self.l2 else rows)
        return beside[0] if len(beside) == 1 else np.concatenate(beside, 1)

    def stacked(self, indices: Indices, views: Sequence[View]) -> Vectors:
        """Float32 (views x N, D): all images in the first view, then all in the next."""
        found = [self.of(indices, view) for view in views]
        return found[0] if len(found) == 1 else np.concatenate(found)


def views_of(number: NumViews) -> tuple[View, ...]:
    """The views that people ask for by their number."""
    return SIXTEEN if number == len(SIXTEEN) else (ORIGINAL,)


def part_of(params: FeaturesParams) -> Part:
    """The layer's number and the pooling of resolved parameters."""
    return params.number, params.pooling


def samples(
    wanted: Sequence[BackboneParams],
    images: Callable[[str], Images],
    crop_size: int,
    looks: Looks,
    context: Context,
    *,
    l2: bool,
    also: Sequence[Part],
    progress: Callable[[int, int], None],
) -> Samples:
    """The features that the resolved `wanted` ask for, of the images and views in `looks`.

    ``images(interpolation)`` are the listing's, decoded so; `also` is computed along with what
    the first network has to compute; `progress` as in :func:`jobs.features.extract.features`.
    """
    sources = []
    for number, one in enumerate(wanted):
        network = backbone(one.model, context)
        layer, pooling = part_of(one.features)
        by_view: dict[str, Features] = {}
        for indices, views in _grouped(looks):
            found = features(
                network,
                images(network.preprocessing.interpolation),
                crop_size,
                [layer],
                [pooling],
                context,
                wanted=indices,
                progress=progress,
                views=views,
                also=also if number == 0 else (),
            )
            by_view |= {view.name: found for view in views}
        sources.append(Source(by_view, (layer, pooling)))
    return Samples(sources, l2)


def _grouped(looks: Looks) -> list[tuple[Indices, list[View]]]:
    """Images and views such that each view stands once, with all images looked at in it."""
    views = {view.name: view for _, several in looks for view in several}
    found: dict[bytes, tuple[Indices, list[View]]] = {}
    for view in views.values():
        parts = [indices for indices, several in looks if view in several]
        union = np.unique(np.concatenate(parts))
        found.setdefault(union.tobytes(), (union, []))[1].append(view)
    return list(found.values())
