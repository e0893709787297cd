"""What the frozen beginning of a network says about images, in place of them.

It is extracted as other features are, kept in the store, and loaded as images would be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.data.augment import Views
from jobs.data.batches import Batch, Loader
from jobs.data.images import Images
from jobs.data.keyed import Bits, Indices
from jobs.data.mixing import Mix
from jobs.features.extract import Features
from jobs.features.shards import Bundle, Part, Spool
from jobs.features.views import ORIGINAL, View, mirrored
from jobs.measure.digest import state_sha256
from jobs.models.prefix import Prefix
from jobs.params.features import Pooling
from jobs.records import Preprocessing

MIRRORED = mirrored(ORIGINAL)
PART: Part = (0, Pooling(grid="full"))  # all that it says


@dataclass(frozen=True, eq=False)
class PrefixSight:
    """A frozen beginning as something that images are looked at with."""

    prefix: Prefix
    preprocessing: Preprocessing

    @property
    def name(self) -> str:
        """What people call it."""
        return f"the beginning of {self.prefix.network.model}"

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that determine what it says about given pixels.

        Weights count by their content, up to the cut: whatever comes behind may differ.
        """
        prefix = self.prefix
        return {
            "model": prefix.network.model,
            "up_to": prefix.path,
            "weights": state_sha256(prefix.tensors()),
            "channels_last": prefix.is_channels_last,
            "preprocessing": self.preprocessing.as_json,
        }

    def forward(self, images: Images, crop_size: int, batch_size: int, device: str) -> _Pass:
        """It, ready to look at `images` of `crop_size` pixels, so many at once."""
        loader = Loader(images, crop_size, self.preprocessing, device)
        return _Pass(self.prefix, loader, batch_size)


@dataclass(frozen=True)
class _Pass:
    """Implements :class:`jobs.features.seeing.Pass`."""

    prefix: Prefix
    loader: Loader
    batch_size: int

    def __call__(
        self,
        indices: Indices,
        view: View,
        bundles: Sequence[Bundle],
        folder: Path,
        pause: Callable[[int], None],
    ) -> Mapping[Bundle, Spool]:
        spool = Spool(len(indices), folder)
        done = 0
        for batch in self.loader.evaluation(indices, self.batch_size, view.look):
            rows = self.prefix(batch.images).flatten(1).cpu().numpy()
            spool.add(PART, done, rows)
            done += len(rows)
            pause(done)
        return {Bundle.of(PART): spool}


class FeatureLoader(Loader):
    """Loads what a beginning says about samples where a loader of images would load pixels."""

    def __init__(
        self,
        like: Loader,
        device: str,
        shape: tuple[int, ...],
        whole: Features,
        flipped: Features | None,
    ) -> None:
        """In place of `like`: of samples as they are (`whole`), and mirrored if they ever are.

        The features of one have this `shape`.
        """
        super().__init__(like.images, like.crop_size, like.preprocessing, device)
        self._shape = shape
        self._whole = whole
        self._flipped = flipped

    def _gather(self, indices: Indices, views: Views, keys: Bits, mix: Mix | None = None) -> Batch:
        """The features (N, ...) in host memory."""
        assert views.boxes is None and not views.retouches, "of whole images alone"
        rows = np.empty((len(indices), *self._shape), np.float32)
        flat = rows.reshape(len(indices), -1)
        for features, view, chosen in (
            (self._whole, ORIGINAL, ~views.flipped),
            (self._flipped, MIRRORED, views.flipped),
        ):
            if chosen.any():
                assert features is not None, "nothing is mirrored otherwise"
                flat[chosen] = features.rows(*PART, indices[chosen], view)
        host = torch.from_numpy(rows)
        labels = torch.from_numpy(self.images.listing.labels[indices])
        who = torch.from_numpy(keys.view(np.int64))
        return Batch(host.pin_memory() if self._pinned else host, labels, who, mix)

    def _on_device(self, host: Batch) -> Batch:
        return Batch(
            host.images.to(self._device, non_blocking=True),
            host.labels.to(self._device, non_blocking=True),
            host.keys.to(self._device, non_blocking=True),
        )
