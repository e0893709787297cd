"""One pass of images through a whole frozen network, of which any layers are heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from jobs.data.batches import Loader
from jobs.data.images import Images
from jobs.data.keyed import Indices
from jobs.features.backbone import Backbone
from jobs.features.pooling import effective, pooled
from jobs.features.shards import Bundle, Part, Spool
from jobs.features.taps import Output, Taps
from jobs.features.views import View


class Forward:
    """A backbone ready to look at `images` of `crop_size` pixels, in batches of `batch_size`."""

    def __init__(
        self, backbone: Backbone, images: Images, crop_size: int, batch_size: int, device: str
    ) -> None:
        self.taps = Taps(backbone.network, crop_size)
        self._loader = Loader(images, crop_size, backbone.preprocessing, device)
        self._batch_size = batch_size

    def __call__(
        self,
        indices: Indices,
        view: View,
        bundles: Sequence[Bundle],
        folder: Path,
        pause: Callable[[int], None],
    ) -> Mapping[Bundle, Spool]:
        """The vectors of the samples `indices` for each of `bundles`, spooled below `folder`.

        `pause(n)` is called when n images are through, and may raise to leave.  Raises InputError
        when a layer that a bundle is for gives no map.
        """
        for bundle in bundles:
            if bundle.layer is not None:
                self.taps.require(bundle.layer or self.taps.read)
        spools = {bundle: Spool(len(indices), folder) for bundle in bundles}
        done = 0
        for batch in self._loader.evaluation(indices, self._batch_size, view.look):
            heard: dict[tuple[Bundle, Part], torch.Tensor] = {}

            def receive(
                layer: int, output: Output, heard: dict[tuple[Bundle, Part], torch.Tensor] = heard
            ) -> None:
                for bundle in bundles:
                    if bundle.wants(layer):
                        _pool(bundle, layer, output, spools[bundle], heard)
                    elif bundle.layer == 0 and layer == self.taps.read:
                        _pool(bundle, 0, output, spools[bundle], heard)

            self.taps(batch.images, receive)
            # all at once: a GPU is asked once per batch
            rows = torch.cat(list(heard.values()), 1).float().cpu().numpy()
            edges = np.cumsum([0, *(vectors.shape[1] for vectors in heard.values())])
            for (bundle, part), first, last in zip(heard, edges, edges[1:], strict=False):
                spools[bundle].add(part, done, rows[:, first:last])
            done += len(rows)
            pause(done)
        return spools


def _pool(
    bundle: Bundle,
    layer: int,
    output: Output,
    spool: Spool,
    heard: dict[tuple[Bundle, Part], torch.Tensor],
) -> None:
    """Add what `bundle` wants of one layer's output to what is `heard`, equal vectors once."""
    for pooling in bundle.poolings:
        real = effective(output, pooling)
        if (bundle, (layer, real)) not in heard:
            heard[bundle, (layer, real)] = pooled(output, real)
        if real != pooling:
            spool.equate((layer, pooling), (layer, real))
