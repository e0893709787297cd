"""A bank of filters: what determines its responses to images, and the responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import PIL
import torch

from ftd.job import Context
from jobs.data.batches import Loader
from jobs.data.images import Images
from jobs.descriptors.samples import Samples
from jobs.features.backbone import backbone
from jobs.features.extract import BATCH_SIZE
from jobs.features.fingerprint import fingerprint
from jobs.features.views import ORIGINAL, View, part
from jobs.params.descriptors import DescriptorParams
from jobs.records import Preprocessing
from jobs.train import numerics

Respond = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]

WHOLE = part("whole", 0.0, 0.0, 1.0)
_UNCHANGED = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")


@dataclass(frozen=True)
class Bank:
    """The filters of resolved parameters, for images decoded to one size.

    ``identity`` (JSON values) determines the responses to given pixels, batches included.
    """

    identity: Mapping[str, Any]
    size: int
    _preprocessing: Preprocessing
    _ready: Callable[[], Respond]
    _device: str

    @cached_property
    def _respond(self) -> Respond:
        return self._ready()

    def responses(self, samples: Samples) -> Iterator[tuple[torch.Tensor, ...]]:
        """Batch by batch, the responses (n, C, H, W) of each layer of filters to the samples."""
        images = samples.images
        loader = Loader(images, self.size, self._preprocessing, self._device)
        look = looked_at(self.size, images).look
        for batch in loader.evaluation(samples.indices, BATCH_SIZE[self._device], look):
            with torch.inference_mode():
                layers = self._respond(batch.images)
            yield layers


def bank(wanted: DescriptorParams, decode_size: int, context: Context) -> Bank:
    """The bank of resolved `wanted` for images of `decode_size` pixels."""
    size = wanted.size or decode_size
    identity: dict[str, Any] = {
        "bank": wanted.bank,
        "decode_size": decode_size,
        "size": size,
        "numerics": fingerprint(context),
        "batch_size": BATCH_SIZE[context.device],
        "pillow": PIL.__version__,  # resizes
    }
    if wanted.model is None:
        return Bank(identity, size, _UNCHANGED, lambda: _gabor(size, context), context.device)
    network = backbone(wanted.model, context)

    def kernels() -> Respond:
        from jobs.descriptors.kernels import Kernels

        return Kernels(network.network)

    identity["backbone"] = dict(network.identity)
    return Bank(identity, size, network.preprocessing, kernels, context.device)


def looked_at(size: int, images: Images) -> View:
    """How whole images are seen in `size` pixels."""
    return ORIGINAL if size == images.size else WHOLE


def _gabor(size: int, context: Context) -> Respond:
    from jobs.descriptors.gabor import Gabor

    numerics.configure(context.numerics, context.threads)
    return Gabor(size, context.device)
