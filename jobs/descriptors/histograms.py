"""Histograms of the responses of filters, as whole numbers: nothing is lost by keeping them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from jobs.descriptors.bins import Edges

Counts = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float64]

EPSILON = 2.2204e-16  # of the published code


def counted(responses: torch.Tensor, edges: Edges) -> Counts:
    """How many of each filter's responses (N, C, H, W) are in each of its bins: (N, C x B).

    A response at an edge (C, B - 1) is in the bin above.  Of the smallest unsigned type that holds
    H x W.
    """
    num_images, num_filters, height, width = responses.shape
    num_bins = edges.shape[1] + 1
    values = responses.transpose(0, 1).flatten(1).contiguous()
    places = torch.searchsorted(
        torch.from_numpy(edges).to(values.device), values, right=True, out_int32=True
    ).view(num_filters, num_images, height * width)
    filters = torch.arange(num_filters, device=values.device, dtype=torch.int32)
    rows = torch.arange(num_images, device=values.device, dtype=torch.int32)
    places += (filters[:, None, None] + rows[:, None] * num_filters) * num_bins
    counts = torch.bincount(places.flatten(), minlength=num_images * num_filters * num_bins)
    found: Counts = (
        counts.view(num_images, num_filters * num_bins)
        .cpu()
        .numpy()
        .astype(np.min_scalar_type(height * width))
    )
    return found


def shares(layers: Sequence[Counts], num_bins: int, smoothing: float) -> Floats:
    """The histograms of N images with `num_bins` bins each, side by side: float64 (N, D).

    `layers` are the counts (N, C x B) of each layer of filters.  `smoothing` is added to each share
    before a histogram is made to sum to 1 again.
    """
    whole = np.empty((len(layers[0]), sum(counts.shape[1] for counts in layers)))
    start = 0
    for counts in layers:
        part = whole[:, start : start + counts.shape[1]]
        num_positions = int(counts[:1, :num_bins].sum()) or 1
        np.divide(counts, num_positions, out=part)
        start += counts.shape[1]
    if smoothing:
        whole += smoothing
        whole /= 1 + num_bins * smoothing
    return whole


def weights(layers: Sequence[int], num_bins: int) -> Floats:
    """How much each bin counts (float64, D), where `layers` have so many filters.

    All layers weigh equally, and all filters of a layer: those of a layer together 1 / layers
    (Ge and Yu 2017: "to ensure equal weighting among different convolutional layers").
    """
    per_filter = np.concatenate([np.full(count, 1 / count / len(layers)) for count in layers])
    return np.repeat(per_filter, num_bins)
