"""Descriptors of samples, from the store or computed into it, shard by shard.

Whoever compares them sees rows of float64: shares of responses per bin, or a network's features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ftd.errors import WeightsError
from ftd.job import Context, Writer
from jobs.data.keyed import Indices
from jobs.descriptors.banks import bank, looked_at
from jobs.descriptors.fitting import Bins, Progress, loaded, writers
from jobs.descriptors.histograms import counted, shares, weights
from jobs.descriptors.samples import SHARD, Samples
from jobs.features.backbone import Backbone, backbone
from jobs.features.extract import BATCH_SIZE, Features, features
from jobs.features.fingerprint import fingerprint
from jobs.features.shards import Part
from jobs.features.views import View
from jobs.params.descriptors import DescriptorParams

Floats = npt.NDArray[np.float64]

KIND = "descriptors"


class Described(Protocol):
    """Samples and their descriptors."""

    @property
    def samples(self) -> Samples:
        """Whose rows they are."""

    @property
    def key(self) -> Mapping[str, Any]:
        """The JSON values that determine the rows."""

    @property
    def weights(self) -> Floats:
        """How much each column counts: float64 (D)."""

    def have(self) -> None:
        """Compute what the store lacks."""

    def rows(self, places: Indices) -> Floats:
        """Float64 (n, D): those of the samples at `places` (ascending)."""


@dataclass(frozen=True)
class Histograms:
    """Histograms of a bank's responses, kept as counts."""

    samples: Samples
    bins: Bins
    progress: Progress

    @property
    def key(self) -> Mapping[str, Any]:
        """The JSON values that determine the rows."""
        pixels = self.samples.pixels_sha256
        return {"bins": self.bins.key, "smoothing": self.bins.wanted.smoothing, "pixels": pixels}

    def have(self) -> None:
        """Compute the shards that the store lacks."""
        self.rows(np.arange(1))

    @cached_property
    def _folders(self) -> list[Path]:
        """The shards' entries."""
        found, done = [], 0
        for shard in self.samples.shards:
            key = {"bins": self.bins.key, "pixels": shard.pixels_sha256}
            make = partial(self._made, shard, done)
            found.append(self.bins.store.entry(KIND, key, make))
            done += len(shard)
            self.progress(done, len(self.samples))
        return found

    @property
    def weights(self) -> Floats:
        """How much each bin counts: layers equally, and filters equally within a layer."""
        return weights([len(edges) for edges in self.bins.edges], self.bins.wanted.bins)

    def rows(self, places: Indices) -> Floats:
        """Float64 (n, D): each filter's histogram sums to 1."""
        wanted = self.bins.wanted
        shards, inside = np.divmod(places, SHARD)
        parts = []
        for number in np.unique(shards).tolist():
            counts = loaded(self._folders[number])
            mine = inside[shards == number]
            parts.append(shares([layer[mine] for layer in counts], wanted.bins, wanted.smoothing))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _made(self, shard: Samples, before: int) -> Mapping[str, Writer]:
        layers: list[list[npt.NDArray[Any]]] = [[] for _ in self.bins.edges]
        done = before
        for responses in self.bins.bank.responses(shard):
            for layer, one, edges in zip(layers, responses, self.bins.edges, strict=True):
                layer.append(counted(one, edges))
            done += len(responses[0])
            self.progress(done, len(self.samples))
        return writers([np.concatenate(layer) for layer in layers])


@dataclass(frozen=True)
class Deep:
    """A network's features, as they are; all columns count the same."""

    samples: Samples
    backbone: Backbone
    wanted: DescriptorParams
    context: Context
    progress: Progress

    @property
    def key(self) -> Mapping[str, Any]:
        """The JSON values that determine the rows."""
        return {
            "backbone": dict(self.backbone.identity),
            "features": self.wanted.features.model_dump(mode="json"),
            "view": self._view.name,
            "size": self._size,
            "decode_size": self.samples.images.size,
            "numerics": fingerprint(self.context),
            "batch_size": BATCH_SIZE[self.context.device],
            "pixels": self.samples.pixels_sha256,
        }

    @property
    def weights(self) -> Floats:
        """Ones: float64 (D)."""
        return np.ones(self.rows(np.arange(1)).shape[1])

    def have(self) -> None:
        """Compute the features that the store lacks."""
        self.rows(np.arange(1))

    def rows(self, places: Indices) -> Floats:
        """Float64 (n, D).  Raises WeightsError when a feature is not finite."""
        found = self._features.rows(*self._part, self.samples.indices[places], self._view)
        if not np.isfinite(found).all():
            raise WeightsError(
                f"layer {self.wanted.features.layer} gives features that are not finite",
                where="descriptors.model.weights",
                fix="These weights are of a network that diverged: use others",
            )
        return found.astype(np.float64)

    @property
    def _size(self) -> int:
        return self.wanted.size or self.samples.images.size

    @property
    def _view(self) -> View:
        return looked_at(self._size, self.samples.images)

    @property
    def _part(self) -> Part:
        return self.wanted.features.number, self.wanted.features.pooling

    @cached_property
    def _features(self) -> Features:
        layer, pooling = self._part
        # alone: of several datasets in one, other rows than those wanted need not be decoded
        return features(
            self.backbone, self.samples.images, self._size, [layer], [pooling], self.context,
            wanted=self.samples.indices, progress=self.progress, views=[self._view], alone=True,
            single=True,
        )  # fmt: skip


def described(
    wanted: DescriptorParams, ours: Samples, theirs: Samples, context: Context, progress: Progress
) -> tuple[Described, Described]:
    """Target and pool in terms of the bank of resolved `wanted`; nothing is computed yet.

    Bins are fitted on the target's samples, `ours`.
    """
    if wanted.bank == "deep":
        assert wanted.model is not None, "resolved"
        network = backbone(wanted.model, context)
        of_ours, of_theirs = (
            Deep(samples, network, wanted, context, progress) for samples in (ours, theirs)
        )
        return of_ours, of_theirs
    filters = bank(wanted, ours.images.size, context)
    bins = Bins(filters, ours, wanted, context.store, progress)
    return Histograms(ours, bins, progress), Histograms(theirs, bins, progress)
