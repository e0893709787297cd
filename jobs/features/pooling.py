"""From the map behind a layer to one vector per image: the mean or maximum of each cell of a grid.

Cell i of g covers positions floor(i n / g) .. ceil((i + 1) n / g) - 1 of n, as in adaptive pooling
(He et al. 2014, "Spatial pyramid pooling", with cells that may overlap by one position).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from jobs.features.taps import Output
from jobs.params.features import Pooling


def pooled(output: Output, pooling: Pooling) -> torch.Tensor:
    """Vectors (N, D) of `output`; D is C x cells, channel by channel, rows of the grid first.

    A class token's C numbers stand before those of the map.  A grid finer than the map is the map.
    """
    vectors = _cells(output.map, pooling).flatten(1)
    return vectors if output.token is None else torch.cat([output.token, vectors], 1)


def effective(output: Output, pooling: Pooling) -> Pooling:
    """The one pooling that stands for all that give the same as `pooling` on such an `output`."""
    side = max(output.map.shape[2:])
    return Pooling(grid="full") if pooling.grid == "full" or pooling.grid >= side else pooling


def _cells(maps: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Maps (N, C, H, W) as cells (N, C, rows, columns)."""
    if pooling.grid == "full":
        return maps
    height, width = (min(pooling.grid, side) for side in maps.shape[2:])
    if height == width == 1:  # many times faster than torch's pooling
        whole = maps.mean((2, 3)) if pooling.by == "mean" else maps.amax((2, 3))
        return whole[:, :, None, None]
    if pooling.by == "mean":
        return functional.adaptive_avg_pool2d(maps, (height, width))
    return functional.adaptive_max_pool2d(maps, (height, width))
