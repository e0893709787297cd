"""The bins of a bank's filters, fitted on some samples: from the store, or in two passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.job import Writer
from ftd.store import Store
from jobs.descriptors.banks import Bank
from jobs.descriptors.bins import Edges, Extent, edges, fine_counts
from jobs.descriptors.samples import Samples
from jobs.params.descriptors import DescriptorParams

Progress = Callable[[int, int], None]  # images done, of how many; may raise to leave

KIND = "bins"


@dataclass(frozen=True)
class Bins:
    """Where the histograms of a bank's filters have their edges, fitted on ``samples``."""

    bank: Bank
    samples: Samples
    wanted: DescriptorParams
    store: Store
    progress: Progress

    @property
    def key(self) -> Mapping[str, Any]:
        """The JSON values that determine the edges."""
        return {
            "bank": dict(self.bank.identity),
            "fitted_on": self.samples.pixels_sha256,
            "bins": self.wanted.bins,
            "binning": self.wanted.binning,
        }

    @cached_property
    def edges(self) -> list[Edges]:
        """Of each layer of filters: float32 (C, bins - 1)."""
        folder = self.store.entry(KIND, self.key, self._made)
        return [np.array(layer) for layer in loaded(folder)]

    def _made(self) -> Mapping[str, Writer]:
        extents: list[Extent] = []
        fine: list[npt.NDArray[np.int64]] = []
        for number in range(2):  # passes
            done = number * len(self.samples)
            for layers in self.bank.responses(self.samples):
                if number == 0:
                    found = [Extent.of(layer) for layer in layers]
                    extents = [a.with_(b) for a, b in zip(extents or found, found, strict=True)]
                else:
                    counts = [fine_counts(*both) for both in zip(layers, extents, strict=True)]
                    fine = [a + b for a, b in zip(fine, counts, strict=True)] if fine else counts
                done += len(layers[0])
                self.progress(done, 2 * len(self.samples))
        return writers(
            [
                edges(extent, counts, self.wanted.bins, self.wanted.binning)
                for extent, counts in zip(extents, fine, strict=True)
            ]
        )


def writers(layers: Sequence[npt.NDArray[Any]]) -> Mapping[str, Writer]:
    """The files of an entry that holds an array per layer of filters."""
    return {
        f"layer-{number}.npy": partial(_save, layer) for number, layer in enumerate(layers, start=1)
    }


def loaded(folder: Path) -> list[npt.NDArray[Any]]:
    """The arrays of such an entry, mapped into memory."""
    return [np.load(path, mmap_mode="r") for path in sorted(folder.glob("layer-?.npy"))]


def _save(layer: npt.NDArray[Any], path: Path) -> None:
    np.save(path, layer)
