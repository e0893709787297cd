"""Descriptors of entries: features in one or many views, normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.job import Context
from ftd.seeds import keyed_hash
from jobs.data.augment import Augmentation, Views
from jobs.data.images import Images
from jobs.data.keyed import Bits, Indices
from jobs.features.backbone import Backbone
from jobs.features.extract import features
from jobs.features.views import View
from jobs.params.augment import AugmentParams, ResizedCropParams
from jobs.params.features import FeaturesParams
from jobs.params.retrieval import InstancesParams
from jobs.params.solvers import NormaliseParams
from jobs.solvers.normalise import Normaliser, fitted, unit_length

RANDOM = "random"  # begins the name of a view that is this run's alone
Vectors = npt.NDArray[Any]  # float32 before a PCA, float64 after it


class Descriptors:
    """Features of one dataset's images for one network, layer and pooling, in given views."""

    def __init__(
        self,
        backbone: Backbone,
        images: Images,
        crop_size: int,
        wanted: FeaturesParams,
        normalise: NormaliseParams,
        context: Context,
        progress: Callable[[int, int], None],
    ) -> None:
        self._backbone, self._images, self._crop_size = backbone, images, crop_size
        self._wanted, self._normalise = wanted, normalise
        self._context, self._progress = context, progress
        self._normaliser = Normaliser(normalise.model_copy(update={"pca": None}), None)

    def fit(self, samples: Indices, views: Sequence[View], numerics: Mapping[str, Any]) -> None:
        """Fit the PCA, if one is asked for, on all of these views of these samples."""
        if self._normalise.pca is not None:
            stacked = np.concatenate(self._plain(samples, views))
            self._normaliser = fitted(stacked, self._normalise, self._context.store, numerics)

    def of(self, samples: Indices, views: Sequence[View]) -> Vectors:
        """The views of samples (int64, N), normalised: (N, views, D)."""
        found = [self._normaliser(rows) for rows in self._plain(samples, views)]
        return np.stack(found, axis=1)

    def _plain(self, samples: Indices, views: Sequence[View]) -> list[Vectors]:
        """Of each view, scaled to length 1 if that is asked for: float32 (N, D)."""
        layer, pooling = self._wanted.number, self._wanted.pooling
        seen = features(
            self._backbone, self._images, self._crop_size, [layer], [pooling], self._context,
            wanted=np.sort(samples), progress=self._progress, views=views,
            alone=views[0].name.startswith(RANDOM),
        )  # fmt: skip
        found = [seen.rows(layer, pooling, samples, view) for view in views]
        return [unit_length(rows) for rows in found] if self._normalise.l2 else found


def random_views(params: InstancesParams, images: Images, seed: int) -> tuple[View, ...]:
    """Views of every image, drawn by its content; those of fewer are among those of more."""
    part = ResizedCropParams(scale=params.scale)
    more = AugmentParams(resized_crop=part, colour=params.colour)
    drawn = keyed_hash(more.model_dump_json(), int(params.flip), seed)
    contents = hashlib.sha256(images.digests.tobytes()).hexdigest()  # what draws go by

    def view(number: int) -> View:
        def look(decode_size: int, crop_size: int, digests: Bits, interpolation: str) -> Views:
            augmentation = Augmentation(
                decode_size, crop_size, params.flip, False, seed, more, interpolation
            )
            return augmentation.views(number, digests)

        return View(f"{RANDOM} {number} {drawn} {contents}", look)

    return tuple(view(number) for number in range(params.views))
