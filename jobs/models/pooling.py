"""Adaptive average pooling as two matrix products, so that its gradient is exact everywhere.

torch's own has no deterministic gradient on CUDA.  The formula is the same: output cell i of o
averages the inputs floor(i n / o) .. ceil((i + 1) n / o) - 1 of n.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional


@lru_cache(maxsize=64)  # making one takes longer than pooling small maps with it
def averaging_matrix(
    num_in: int, num_out: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The (num_out, num_in) matrix that averages `num_in` cells to `num_out`; only to be read."""
    with torch.inference_mode(False):  # whoever asks later may need gradients through it
        cell = torch.arange(num_out, device=device).unsqueeze(1)
        start = cell * num_in // num_out
        end = ((cell + 1) * num_in + num_out - 1) // num_out
        position = torch.arange(num_in, device=device)
        inside = ((position >= start) & (position < end)).to(dtype)
        return inside / inside.sum(dim=1, keepdim=True)


class AdaptiveAvgPool2d(nn.Module):
    """Pool images (N, C, H, W) to (N, C, `height`, `width`); the identity when sizes are equal."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height = height
        self.width = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Average over the columns, then over the rows."""
        height, width = images.shape[-2:]
        if (height, width) == (self.height, self.width):
            return images
        columns = averaging_matrix(width, self.width, images.dtype, images.device)
        rows = averaging_matrix(height, self.height, images.dtype, images.device)
        turned = functional.linear(images, columns).transpose(-1, -2)
        return functional.linear(turned, rows).transpose(-1, -2)
