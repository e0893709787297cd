"""A listing: what a dataset holds, known without decoding a single image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from jobs.data.keyed import Indices
from jobs.manifest import Box

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """A dataset's samples in a fixed order, and how to get at their images.

    ``ids`` are unique names for people (relative paths); ``labels`` (int64, N) index
    ``class_names`` (-1: a class that is left out), or are zeros and ones (int64, (N, K)) where an
    image has several.  Samples of one of the ``groups`` (a patient, a video) never part, those of
    different ``neighbourhoods`` (kinds of cell) are no neighbours; ``given`` is the dataset's own
    split of each sample; all three only if it has such.  ``content(i)`` is a sample's stored bytes
    and ``image(content)`` decodes them, ``boxes`` says which part of it counts; both may raise
    what reading a bad file raises.  ``where`` is the folder or package that errors point at.
    """

    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    content: Callable[[int], bytes]
    image: Callable[[bytes], Image.Image]
    where: str
    neighbourhoods: tuple[str, ...] | None = field(default=None)
    groups: tuple[str, ...] | None = field(default=None)
    boxes: tuple[Box | None, ...] | None = field(default=None)
    given: tuple[SplitName, ...] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels."""
        return self.labels.ndim == 2

    def images_per_class(self, indices: Indices) -> npt.NDArray[np.int64]:
        """How many of the samples `indices` have each label (int64, K)."""
        labels = self.labels[indices]
        if self.multi_label:
            return np.asarray(labels.sum(axis=0))
        return np.bincount(labels, minlength=len(self.class_names))
