"""What a comparison is made of: two networks, and what their layers say about the same images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ftd.job import Context
from jobs.data.keyed import Indices
from jobs.data.prepare import Data
from jobs.features.backbone import backbone
from jobs.features.extract import Features as Extracted
from jobs.features.extract import features
from jobs.inspection.networks import Compared, check_untested, compared
from jobs.inspection.probing import Labelled
from jobs.inspection.representation import Features
from jobs.layers import numbered
from jobs.params.changes import ChangesParams
from jobs.params.features import Pooling
from jobs.records import Preprocessing

MEANS, PEAKS = Pooling(by="mean"), Pooling(by="max")


@dataclass(frozen=True)
class Material:
    """Two networks and the images they are compared on.  Layers are numbers from 1."""

    params: ChangesParams
    data: Data
    context: Context
    networks: Compared
    passes: tuple[Extracted, Extracted]  # before, after

    @classmethod
    def gathered(
        cls, params: ChangesParams, data: Data, preprocessing: Preprocessing, context: Context
    ) -> Material:
        """With both networks loaded and their features of the images at hand.

        Raises WeightsError and DataError for a run that does not fit.
        """
        class_names = data.listing.class_names
        networks = compared(params.model, params.after, class_names, preprocessing, context)
        wanted = data.splits.by_name()[params.images]
        if params.probe:
            wanted = np.union1d(data.splits.train, data.splits.val)
        check_untested(params.after, data.images.digests[wanted], context)

        def progress(done: int, total: int) -> None:
            context.progress(0, 1, features=f"{done}/{total}")
            context.checkpoint(0, dict)

        ended = params.model.model_copy(update={"weights": params.after})
        assert params.target.crop_size is not None, "resolved"
        before, after = (
            features(
                backbone(model, context),
                data.images,
                params.target.crop_size,
                _layers(params),
                [MEANS, PEAKS],
                context,
                wanted=wanted,
                progress=progress,
            )
            for model in (params.model, ended)
        )
        return cls(params, data, context, networks, (before, after))

    @property
    def layers(self) -> list[int]:
        """The layers that are looked at."""
        return _layers(self.params)

    def name(self, layer: int) -> str:
        """What a layer is called."""
        return self.networks.before.layers[layer - 1].name

    def features(self, layer: int) -> tuple[Features, Features]:
        """What a layer says about the compared images, before and after.

        Raises InputError for a layer that gives no single map of features.
        """
        before, after = (
            Features(one.rows(layer, MEANS, self.indices), one.rows(layer, PEAKS, self.indices))
            for one in self.passes
        )
        return before, after

    def labelled(self, layer: int, split: str) -> tuple[Labelled, Labelled]:
        """What a layer says about the images of a split, before and after, with their classes.

        Raises InputError as :meth:`features`.
        """
        indices = self.data.splits.by_name()[split]
        labels = self.data.listing.labels[indices]
        before, after = (Labelled(one.rows(layer, MEANS, indices), labels) for one in self.passes)
        return before, after

    @cached_property
    def indices(self) -> Indices:
        """The images (of the listing) that are compared."""
        return self.data.splits.by_name()[self.params.images]

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Their classes."""
        return self.data.listing.labels[self.indices]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The target's classes."""
        return self.data.listing.class_names


def _layers(params: ChangesParams) -> list[int]:
    if params.layers is not None:
        return [int(layer) for layer in params.layers]
    return list(range(1, len(numbered(params.model.name)) + 1))
