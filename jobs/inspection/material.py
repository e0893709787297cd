"""What a comparison is made of: two networks, and what their layers say about the same images."""

from __future__ import annotations

from collections.abc import Mapping
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
        crop_size = params.target.crop_size
        assert crop_size is not None, "resolved"
        looked_at = _layers(params, networks)
        before, after = (
            features(
                backbone(model, context),
                data.images,
                crop_size,
                [layer for layer in looked_at if layer in network.numbers],
                [MEANS, PEAKS],
                context,
                wanted=wanted,
                progress=progress,
            )
            for model, network in ((params.model, networks.before), (ended, networks.after))
        )
        return cls(params, data, context, networks, (before, after))

    @property
    def layers(self) -> list[int]:
        """The layers that are looked at."""
        return _layers(self.params, self.networks)

    def name(self, layer: int) -> str:
        """What a layer is called."""
        return self.networks.layer(layer).name

    def features(self, layer: int) -> Mapping[str, Features]:
        """What a layer says about the compared images, ``before`` and ``after``.

        Of a part that the run grew, only ``after``.  Raises InputError for a layer that gives no
        single map of features.
        """
        return {
            when: Features(
                one.rows(layer, MEANS, self.indices), one.rows(layer, PEAKS, self.indices)
            )
            for when, one in self._passes_of(layer).items()
        }

    def labelled(self, layer: int, split: str) -> Mapping[str, Labelled]:
        """The same of the images of a split, with their classes."""
        indices = self.data.splits.by_name()[split]
        labels = self.data.listing.labels[indices]
        return {
            when: Labelled(one.rows(layer, MEANS, indices), labels)
            for when, one in self._passes_of(layer).items()
        }

    def _passes_of(self, layer: int) -> Mapping[str, Extracted]:
        before, after = self.passes
        earlier = {} if layer in self.networks.grown else {"before": before}
        return {**earlier, "after": after}

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


def _layers(params: ChangesParams, networks: Compared) -> list[int]:
    if params.layers is not None:
        return [int(layer) for layer in params.layers]
    return list(networks.numbers)
