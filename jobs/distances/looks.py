"""What a network says about the compared images, computed when a measure first asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ftd.job import Context
from jobs.data.images import Pixels
from jobs.distances.sides import Side
from jobs.features.backbone import Backbone
from jobs.features.extract import Features, features
from jobs.params.features import FeaturesParams, layer_number

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
BATCH = 64


@dataclass(eq=False)
class Looks:
    """`backbone` looking at `sides`; the layer and pooling `wanted` (resolved) are its features."""

    backbone: Backbone
    wanted: FeaturesParams
    sides: tuple[Side, ...]
    context: Context
    progress: Progress
    _found: dict[int, Features] = field(default_factory=dict)

    def features(self, side: Side) -> Floats:
        """The asked layer's features of a side, (N, D)."""
        return self._rows(side, self.wanted.number)

    def logits(self, side: Side) -> Floats:
        """What the weights' own classifier says, (N, Z)."""
        return self._rows(side, self._last)

    def probabilities(self, side: Side) -> Floats:
        """The softmax of the logits, (N, Z)."""
        logits = self.logits(side)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: Floats = powers / powers.sum(axis=1, keepdims=True)
        return found

    def batches(self, side: Side) -> Iterator[torch.Tensor]:
        """The images as the network is given them, float32 (n, 3, H, W), in the side's order."""
        from jobs.data.batches import Loader

        preprocessing = self.backbone.preprocessing
        loader = Loader(side.images, side.crop_size, preprocessing, self.context.device)
        done = 0
        for batch in loader.evaluation(side.indices, BATCH):
            yield batch.images
            done += len(batch.images)
            self.progress(done, len(side.indices))

    def small_pixels(self, side: Side, size: int) -> Pixels:
        """The images with `size` pixels a side at most: uint8 (N, size, size, 3)."""
        from jobs.distances.cnn import shrunk

        return np.stack([shrunk(side.pixels(index), size) for index in side.indices.tolist()])

    def prepare(self, sides: tuple[Side, ...]) -> None:
        """Have the features of `sides`."""
        for side in sides:
            self._of_dataset(side)

    @property
    def _last(self) -> int:
        return layer_number("last", self.backbone.model.name)

    def _rows(self, side: Side, layer: int) -> Floats:
        found = self._of_dataset(side)
        return np.asarray(found.rows(layer, self.wanted.pooling, side.indices), np.float64)

    def _of_dataset(self, side: Side) -> Features:
        """Of all compared images of a dataset, in one pass."""
        found = self._found.get(id(side.images))
        if found is None:
            together = [other.indices for other in self.sides if other.images is side.images]
            found = self._found[id(side.images)] = features(
                self.backbone,
                side.images,
                side.crop_size,
                sorted({self.wanted.number, self._last}),
                [self.wanted.pooling],
                self.context,
                wanted=np.unique(np.concatenate(together)),
                progress=self.progress,
            )
        return found
