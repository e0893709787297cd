"""Mixup and cutmix: two images of a batch become one, and so do their labels.

Whether, how much and where an image is mixed is drawn per (seed, epoch, sample digest).  Its
partner can only be one of its batch (another image would have to be loaded for it): the one whose
hash with it is smallest, so that one more image in a batch changes the partners of few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from jobs.data.keyed import Bits, keyed_bits, keyed_choice, keyed_uniform, splitmix64
from jobs.params.augment import AugmentParams


@dataclass(frozen=True)
class Mix:
    """How N images are mixed.

    Image i keeps the ``share`` (float32, N) and gets the rest from image ``partner`` (int64, N):
    blended where ``box`` (int64, (N, 4): top, left, bottom, right) is empty, else inside the box.
    """

    partner: torch.Tensor
    share: torch.Tensor
    box: torch.Tensor

    def to(self, device: torch.device) -> Mix:
        """The same on `device`."""
        parts = (self.partner, self.share, self.box)
        return Mix(*(part.to(device, non_blocking=True) for part in parts))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) mixed."""
        top, left, bottom, right = (side.view(-1, 1, 1, 1) for side in self.box.unbind(1))
        height = torch.arange(images.shape[2], device=images.device).view(1, 1, -1, 1)
        width = torch.arange(images.shape[3], device=images.device).view(1, 1, 1, -1)
        inside = (height >= top) & (height < bottom) & (width >= left) & (width < right)
        is_cut = (bottom > top) & (right > left)
        blended = torch.where(is_cut, 1.0, self.share.view(-1, 1, 1, 1))
        kept = torch.where(inside, 0.0, blended)
        return torch.lerp(images[self.partner], images, kept)


def mixed(digests: Bits, wanted: AugmentParams, size: int, seed: int, epoch: int) -> Mix | None:
    """How a batch of the samples `digests` (uint64, N) is mixed, for images of `size` pixels.

    Mixup (Zhang et al. 2018): share ~ Beta(alpha, alpha).  Cutmix (Yun et al. 2019): a box around
    a uniform centre whose sides are sqrt(1 - share) of the image's, cut off at its border; what is
    left of the image is its share then.  None where neither is `wanted`.
    """
    if wanted.mixup is None and wanted.cutmix is None:
        return None
    num_images = len(digests)
    share, box = np.ones(num_images), np.zeros((num_images, 4), dtype=np.int64)
    cut = np.full(num_images, wanted.mixup is None)
    if wanted.mixup is not None:
        share = _beta(keyed_uniform(digests, "mixup", seed, epoch), wanted.mixup)
        if wanted.cutmix is not None:
            cut = keyed_choice(digests, 2, "mixup or cutmix", seed, epoch) == 1
    if wanted.cutmix is not None:
        boxes = _boxes(digests, wanted.cutmix, size, seed, epoch)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        share = np.where(cut, 1 - area / size**2, share)
        box[cut] = boxes[cut]
    return Mix(
        torch.from_numpy(_partners(digests, seed, epoch)),
        torch.from_numpy(share.astype(np.float32)),
        torch.from_numpy(box),
    )


def _partners(digests: Bits, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The other image of the batch whose hash with each is smallest; itself if it is alone."""
    bits = keyed_bits(digests, "partner", seed, epoch)
    pairs = splitmix64(bits[:, None] ^ splitmix64(digests)[None, :])
    np.fill_diagonal(pairs, np.iinfo(np.uint64).max)
    return np.asarray(pairs.argmin(axis=1))


def _boxes(digests: Bits, alpha: float, size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    left_over = _beta(keyed_uniform(digests, "cutmix", seed, epoch), alpha)
    side = (size * np.sqrt(1 - left_over)).astype(np.int64)
    sides = []
    for axis in ("top", "left"):
        centre = keyed_choice(digests, size, "cutmix", axis, seed, epoch)
        start = np.clip(centre - side // 2, 0, size)
        sides.append((start, np.clip(centre - side // 2 + side, 0, size)))
    (top, bottom), (left, right) = sides
    return np.stack([top, left, bottom, right], axis=1)


def _beta(uniform: npt.NDArray[np.float64], alpha: float) -> npt.NDArray[np.float64]:
    """Quantiles of Beta(alpha, alpha), to a millionth: versions of scipy agree no further."""
    from scipy.special import betaincinv  # a third of a second that only mixing needs

    return np.asarray(betaincinv(alpha, alpha, uniform)).round(6)
