"""Bins for the responses of filters, fitted on the target's training images.

Ge and Yu 2017 give each bin an equal share of the responses.  Their code does that on a histogram
of 2,000 fine bins, which it merges.  Here edges are quantiles of the same fine histogram, responses
taken to lie evenly inside a fine bin: shares differ from equal ones only where many responses are
one value, which no edge can part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from ftd.errors import WeightsError

Floats = npt.NDArray[np.float64]
Edges = npt.NDArray[np.float32]

FINE = 2000


@dataclass(frozen=True)
class Extent:
    """The least and greatest response of each filter of a layer: float64 (C,) each."""

    low: Floats
    high: Floats

    @classmethod
    def of(cls, responses: torch.Tensor) -> Extent:
        """Of responses (N, C, H, W).  Raises WeightsError when one is not finite."""
        low, high = torch.aminmax(responses.transpose(0, 1).flatten(1), dim=1)
        found = cls(low.double().cpu().numpy(), high.double().cpu().numpy())
        if not np.isfinite(found.low + found.high).all():
            raise WeightsError(
                "a convolution gives responses that are not finite",
                where="descriptors.model.weights",
                fix="These weights are of a network that diverged: use others",
            )
        return found

    def with_(self, other: Extent) -> Extent:
        """Of both."""
        return Extent(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def fine_counts(responses: torch.Tensor, extent: Extent) -> npt.NDArray[np.int64]:
    """How many responses (N, C, H, W) are in each of FINE equal parts of `extent`: (C, FINE)."""
    values = responses.transpose(0, 1).flatten(1)
    width = extent.high - extent.low
    with np.errstate(divide="ignore", over="ignore"):
        scale = np.where(width > 0, FINE / width, 0.0)
    scale[~np.isfinite(scale)] = 0.0  # filters that always say the same
    low, per_fine = (
        torch.from_numpy(one).to(values.device, torch.float32)[:, None]
        for one in (extent.low, scale)
    )
    places = ((values - low) * per_fine).to(torch.int64).clamp_(0, FINE - 1)
    first = torch.arange(len(places), device=values.device)[:, None] * FINE
    counts = torch.bincount((places + first).flatten(), minlength=FINE * len(places))
    return counts.view(-1, FINE).cpu().numpy()


def edges(
    extent: Extent,
    counts: npt.NDArray[np.int64],
    num_bins: int,
    binning: Literal["equal_mass", "equal_width"],
) -> Edges:
    """The `num_bins` - 1 edges between bins: float32 (C, num_bins - 1), ascending.

    `counts` are the :func:`fine_counts` of the images that the bins are fitted on.  All edges of a
    filter that always says the same are that value.
    """
    shares = np.arange(1, num_bins) / num_bins
    width = (extent.high - extent.low)[:, None]
    if binning == "equal_width":
        return (extent.low[:, None] + width * shares).astype(np.float32)
    below = np.zeros((len(counts), FINE + 1))
    below[:, 1:] = counts.cumsum(axis=1)
    wanted = below[:, -1:] * shares
    places = np.stack(
        [np.searchsorted(row[1:], one) for row, one in zip(below, wanted, strict=True)]
    )
    inside = wanted - np.take_along_axis(below, places, 1)
    inside /= np.take_along_axis(counts, places, 1)  # a share is first reached where some are
    return (extent.low[:, None] + width / FINE * (places + inside)).astype(np.float32)
