"""Listings made up for tests: labels, without images worth looking at."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from jobs.data.keyed import Bits, splitmix64
from jobs.data.listing import Listing


def made_up(labels: list[int], **fields: Any) -> Listing:
    """A listing with these labels, whose classes are c0, c1, ..."""
    return Listing(
        class_names=tuple(f"c{label}" for label in range(max(labels) + 1)),
        ids=tuple(map(str, range(len(labels)))),
        labels=np.array(labels, dtype=np.int64),
        content=lambda index: b"",
        image=lambda content: Image.new("L", (8, 8)),
        where="made up",
        **fields,
    )


def digests_for(listing: Listing) -> Bits:
    """Distinct digests."""
    return splitmix64(np.arange(len(listing), dtype=np.uint64))
