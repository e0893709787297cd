"""Several datasets as one: all their images, and the union of their classes."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftd.errors import DataError
from jobs.data.duplicates import Report
from jobs.data.images import Images, Pixels
from jobs.data.keyed import Bits
from jobs.data.listing import Listing
from jobs.data.prepare import Data
from jobs.data.splits import Splits


@dataclass(frozen=True)
class _United(Images):
    """Images of several datasets, one behind the other; the shards are theirs."""

    parts: Sequence[Images] = ()
    firsts: tuple[int, ...] = ()  # of each part

    def pixels(self, index: int) -> Pixels:
        """Image `index`, as its dataset has it."""
        part = bisect_right(self.firsts, index) - 1
        return self.parts[part].pixels(index - self.firsts[part])


def united(parts: Sequence[Data]) -> Data:
    """The images of all `parts`, each with its own split; classes of the same name are one.

    Images keep their digests, so that draws do not depend on what they are united with; one that
    is in several datasets gets another digest from the second on.  Decode sizes must be equal.
    """
    if len(parts) == 1:
        return parts[0]
    if any(len(part.terciles) for part in parts):
        raise DataError("sources with an imbalance cannot be united", fix="Leave imbalance out")
    listings = [part.listing for part in parts]
    firsts = (0, *accumulate(map(len, listings[:-1])))
    images = [part.images for part in parts]
    placed = list(zip(firsts, parts, strict=True))
    joined = _United(
        listing=_listing(listings),
        shards=(),
        shard_size=1,
        digests=_digests([one.digests for one in images]),
        pixel_digests=np.concatenate([one.pixel_digests for one in images]),
        hashes=np.concatenate([one.hashes for one in images]),
        unreadable={
            first + index: why
            for first, part in placed
            for index, why in part.images.unreadable.items()
        },
        size=images[0].size,
        parts=images,
        firsts=firsts,
    )
    splits = Splits(
        *(
            np.concatenate([first + part.splits.by_name()[name] for first, part in placed])
            for name in ("train", "val", "test")
        )
    )
    sizes = {f"data/num_{name}": float(len(i)) for name, i in splits.by_name().items()}
    return Data(joined, splits, (), sizes | Report.of(joined, splits).metrics())


def _digests(parts: Sequence[Bits]) -> Bits:
    seen: set[int] = set()
    found = []
    for number, digests in enumerate(parts):
        again = np.array([digest in seen for digest in digests.tolist()], bool)
        own = digests.copy()
        for index in np.flatnonzero(again):
            text = int(digests[index]).to_bytes(8, "big") + number.to_bytes(8, "big")
            own[index] = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
        seen.update(own.tolist())
        found.append(own)
    return np.concatenate(found)


def _listing(parts: Sequence[Listing]) -> Listing:
    names = tuple(dict.fromkeys(name for part in parts for name in part.class_names))
    number = {name: label for label, name in enumerate(names)}
    ids = tuple(f"{n}/{name}" for n, part in enumerate(parts, start=1) for name in part.ids)
    return Listing(
        class_names=names,
        ids=ids,
        labels=np.concatenate([_labels(part, number) for part in parts]),
        content=_never,
        image=_never_image,
        where=", ".join(dict.fromkeys(part.where for part in parts)),
    )


def _labels(part: Listing, number: dict[str, int]) -> npt.NDArray[np.int64]:
    column = np.array([number[name] for name in part.class_names], np.int64)
    if not part.multi_label:
        return np.where(part.labels < 0, -1, column[part.labels])
    labels = np.zeros((len(part), len(number)), np.int64)
    labels[:, column] = part.labels
    return labels


def _never(index: int) -> bytes:
    raise LookupError(f"image {index} is decoded: its dataset has its bytes")


def _never_image(content: bytes) -> Image.Image:
    raise LookupError("images are decoded: their datasets know how")
