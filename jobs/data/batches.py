"""Batches: images gathered from the store as normalised tensors on the device.

On a GPU the next batch is gathered by a thread into pinned memory while the current one computes;
on the CPU everything happens in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from jobs.data.augment import Augmentation, Look, Views, central
from jobs.data.images import Images, Pixels
from jobs.data.keyed import Bits, Indices
from jobs.data.mixing import Mix
from jobs.data.order import Drawing
from jobs.data.resized_crop import resized
from jobs.records import Preprocessing


@dataclass(frozen=True)
class Batch:
    """Images (float32, (N, 3, H, W), normalised), labels (int64, N), sample keys (int64, N).

    Where images are mixed, ``mix`` says how; ``labels`` are those before.
    """

    images: torch.Tensor
    labels: torch.Tensor
    keys: torch.Tensor
    mix: Mix | None = None


class Loader:
    """Loads samples of one dataset for one network."""

    def __init__(
        self, images: Images, crop_size: int, preprocessing: Preprocessing, device: str
    ) -> None:
        self.images = images
        self.crop_size = crop_size
        self.preprocessing = preprocessing
        self._device = torch.device(device)
        self._pinned = self._device.type == "cuda"
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        # (x / 255 - mean) / std as one multiplication and one addition
        self._scale = (1 / (255 * std)).view(1, 3, 1, 1).to(self._device)
        self._shift = (-mean / std).view(1, 3, 1, 1).to(self._device)

    def training(
        self, train: Indices, order: Drawing, augmentation: Augmentation, steps: range
    ) -> Iterator[Batch]:
        """The batches of `steps`, of samples `train`; each depends on its step alone."""

        def gather(step: int) -> Batch:
            indices = train[order.batch(step)]
            keys = order.keys(step, self.images.digests[indices])
            epoch = order.epoch_of(step)
            views, mix = augmentation.views(epoch, keys), augmentation.mix(epoch, keys)
            return self._gather(indices, views, keys, mix)

        return self._stream(gather, steps)

    def evaluation(
        self, indices: Indices, batch_size: int, look: Look | None = None
    ) -> Iterator[Batch]:
        """`indices` in the order given, each as `look` says (None: its centre)."""
        size, interpolation = self.images.size, self.preprocessing.interpolation

        def gather(start: int) -> Batch:
            chosen = indices[start : start + batch_size]
            digests = self.images.digests[chosen]
            if look is None:
                views = central(size, self.crop_size, len(chosen))
            else:
                views = look(size, self.crop_size, digests, interpolation)
            return self._gather(chosen, views, digests)

        return self._stream(gather, range(0, len(indices), batch_size))

    def _stream(self, gather: Callable[[int], Batch], numbers: range) -> Iterator[Batch]:
        gathered = _ahead(gather, numbers) if self._pinned else map(gather, numbers)
        return map(self._on_device, gathered)

    def _gather(self, indices: Indices, views: Views, keys: Bits, mix: Mix | None = None) -> Batch:
        """The uint8 images (N, H, W, 3) in host memory, not yet normalised."""
        size = self.crop_size
        host = torch.empty(
            (len(indices), size, size, 3), dtype=torch.uint8, pin_memory=self._pinned
        )
        look(self.images, indices, views, host.numpy())
        labels = torch.from_numpy(self.images.listing.labels[indices])
        return Batch(host, labels, torch.from_numpy(keys.view(np.int64)), mix)

    def _on_device(self, host: Batch) -> Batch:
        pixels = host.images.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        images = (
            pixels.to(torch.float32, memory_format=torch.contiguous_format)
            .mul_(self._scale)
            .add_(self._shift)
        )
        mix = None if host.mix is None else host.mix.to(self._device)
        return Batch(
            images if mix is None else mix(images),
            host.labels.to(self._device, non_blocking=True),
            host.keys.to(self._device, non_blocking=True),
            mix,
        )


def look(images: Images, indices: Indices, views: Views, out: Pixels) -> None:
    """Copy each image as its view shows it into `out` (uint8, (N, size, size, 3))."""
    size = out.shape[1]
    places = zip(
        indices.tolist(),
        views.top.tolist(),
        views.left.tolist(),
        views.flipped.tolist(),
        strict=True,
    )
    for row, (index, top, left, flipped) in enumerate(places):
        if views.boxes is None:
            window = images.pixels(index)[top : top + size, left : left + size]
        else:
            box = tuple(views.boxes[row].tolist())
            window = resized(images.pixels(index), box, size, views.interpolation)
        window = window[:, ::-1] if flipped else window
        if views.retouches:
            image = Image.fromarray(window)
            for retouch in views.retouches:
                image = retouch(image, row)
            window = np.asarray(image)
        out[row] = window


def _ahead(gather: Callable[[int], Batch], numbers: Iterable[int]) -> Iterator[Batch]:
    """``map(gather, numbers)`` with the next one already under way in a thread."""
    with ThreadPoolExecutor(1, "loader") as pool:
        waiting = None
        for number in numbers:
            following = pool.submit(gather, number)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
