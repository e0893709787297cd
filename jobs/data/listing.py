"""A listing: what a dataset holds, known without decoding a single image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """A dataset's samples in a fixed order, and how to get at their images.

    ``ids`` are unique names for people (relative paths); ``labels`` (int64, N) index
    ``class_names``; ``groups`` separates samples that are no neighbours (cell type); ``given`` is
    the dataset's own split of each sample, if it has one.  ``content(i)`` is a sample's stored
    bytes and ``image(content)`` decodes them; both may raise what reading a bad file raises.
    ``where`` is the folder or package that errors point at.
    """

    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    content: Callable[[int], bytes]
    image: Callable[[bytes], Image.Image]
    where: str
    groups: tuple[str, ...] | None = field(default=None)
    given: tuple[SplitName, ...] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.ids)
