"""Images decoded once: uint8 arrays in the store, mapped into memory and gathered by index.

The store holds them in shards, each an entry of its own: an interrupted decoding goes on behind
the last whole shard, and several processes share the work.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, UnidentifiedImageError

from ftd.errors import DataError, DataNotThere
from ftd.inputs import UNREACHABLE
from ftd.store import Store
from jobs.data.keyed import Bits, Indices
from jobs.data.listing import Listing
from jobs.data.perceptual import perceptual_hash
from jobs.data.pixels import square

Pixels = npt.NDArray[np.uint8]

SHARD = 1024
MAX_SHARDS = 512  # each mapped file costs a descriptor, and 1,024 is a common limit
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Images:
    """A dataset's decoded images.

    ``shards`` are uint8 (n, size, size, 3), n = ``shard_size`` but for the last; those that hold no
    wanted sample are empty.  ``digests`` (uint64, N) identify the samples by content; they are
    distinct.  ``pixel_digests`` (uint64, N) are equal for equal pixels, ``hashes`` (uint64, N)
    alike for pictures that look alike.  ``unreadable`` says why, by sample.
    """

    listing: Listing
    shards: Sequence[Pixels]
    shard_size: int
    digests: Bits
    pixel_digests: Bits
    hashes: Bits
    unreadable: Mapping[int, str]
    size: int

    def pixels(self, index: int) -> Pixels:
        """Image `index`: uint8 (size, size, 3), read-only, not copied."""
        shard, row = divmod(index, self.shard_size)
        pixels: Pixels = self.shards[shard][row]
        return pixels


def decoded(
    listing: Listing,
    fingerprint: str,
    size: int,
    interpolation: str,
    *,
    store: Store,
    threads: int,
    progress: Callable[[int, int], None],
    wanted: Indices | None = None,
    skip_unreadable: bool = False,
) -> Images:
    """The images of `listing` as squares of `size` pixels, from `store` or decoded into it.

    Only shards with samples that are `wanted` (None: all) are.  `fingerprint` is that of the
    dataset's input; `progress(done, total)` is called after each shard and may raise to leave.
    Raises DataError naming the first image that cannot be read, unless `skip_unreadable`;
    DataNotThere when the server they are on went away.
    """
    shard_size = max(SHARD, -(-len(listing) // MAX_SHARDS))
    whole = {
        "dataset": fingerprint,
        "ids": hashlib.sha256("\n".join(listing.ids).encode()).hexdigest(),
        "size": size,
        "interpolation": interpolation,
        "pillow": PIL.__version__,
    }
    if skip_unreadable:
        whole["unreadable"] = "skip"
    shards: list[Pixels] = []
    contents: list[npt.NDArray[np.uint8]] = []
    looks: list[Bits] = []
    unreadable: dict[int, str] = {}
    for start in range(0, len(listing), shard_size):
        indices = range(start, min(start + shard_size, len(listing)))
        if wanted is not None and not _any_within(wanted, indices):
            shards.append(np.empty((0, size, size, 3), np.uint8))
            contents.append(np.zeros((len(indices), 32), np.uint8))
            looks.append(np.zeros((len(indices), 2), np.uint64))
            continue
        folder = _shard(store, whole, listing, indices, threads)
        mapped = np.load(folder / "images.npy", mmap_mode="r")
        shards.append(np.asarray(mapped))  # a plain array: numpy's memmap makes each row dear
        contents.append(np.load(folder / "contents.npy"))
        looks.append(np.load(folder / "looks.npy"))
        missing = json.loads((folder / "unreadable.json").read_text())
        unreadable |= {start + int(row): why for row, why in missing.items()}
        progress(indices.stop, len(listing))
    pixel_digests, hashes = np.concatenate(looks).T
    digests = sample_digests(np.concatenate(contents))
    return Images(listing, shards, shard_size, digests, pixel_digests, hashes, unreadable, size)


def _any_within(wanted: Indices, indices: range) -> bool:
    first, last = np.searchsorted(wanted, [indices.start, indices.stop])
    return bool(first < last)


def sample_digests(contents: npt.NDArray[np.uint8]) -> Bits:
    """A distinct uint64 per sample from its content's SHA-256 (uint8, (N, 32)).

    The n-th sample of the same content gets a digest of (content, n); n counts in listing order.
    """
    digests = contents[:, :8].copy().view(">u8").reshape(-1).astype(np.uint64)
    occurrences: dict[int, int] = {}
    unique, counts = np.unique(digests, return_counts=True)
    repeated = np.flatnonzero(np.isin(digests, unique[counts > 1]))
    for index, digest in zip(repeated.tolist(), digests[repeated].tolist(), strict=True):
        n = occurrences.get(digest, 0)
        occurrences[digest] = n + 1
        if n:
            again = hashlib.sha256(contents[index].tobytes() + n.to_bytes(8, "big")).digest()
            digests[index] = int.from_bytes(again[:8], "big")
    return digests


def _shard(
    store: Store, whole: Mapping[str, Any], listing: Listing, indices: range, threads: int
) -> Path:
    """The store's folder with images.npy, and per image contents.npy (SHA-256 of the stored bytes
    and the box), looks.npy (digest and perceptual hash of the pixels) and unreadable.json."""
    size, interpolation = whole["size"], whole["interpolation"]
    contents = np.zeros((len(indices), 32), np.uint8)
    looks = np.zeros((len(indices), 2), np.uint64)
    unreadable: dict[int, str] = {}

    def decode(index: int) -> tuple[bytes, bytes, tuple[int, int]] | str:
        box = listing.boxes[index] if listing.boxes else None
        try:
            content = listing.content(index)
            image = square(listing.image(content), size, interpolation, box)
        except UNREADABLE as error:
            reason = _reason(error, listing, index)
            if "unreadable" in whole:
                return reason
            raise DataError(
                f"cannot read image {listing.ids[index]} ({reason})",
                where=listing.where,
                fix="Replace or remove it, or set target.corrupt: skip",
            ) from error
        digest = hashlib.sha256(content + repr(box).encode() * (box is not None)).digest()
        pixels = image.tobytes()
        return pixels, digest, (_digest64(pixels), perceptual_hash(image))

    def write_images(path: Path) -> None:
        # Written, not mapped: a disk that fills up under a mapped file kills the process.
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(indices), size, size, 3)}
        with path.open("wb") as stream, ThreadPoolExecutor(threads) as pool:
            np.lib.format.write_array_header_1_0(stream, header)
            for row, found in enumerate(pool.map(decode, indices)):
                if isinstance(found, str):
                    unreadable[row] = found
                    stream.write(bytes(size * size * 3))
                    continue
                pixels, digest, looks[row] = found
                stream.write(pixels)
                contents[row] = np.frombuffer(digest, np.uint8)

    # The order matters: the rest is known once the images are decoded.
    writers = {
        "images.npy": write_images,
        "contents.npy": lambda path: np.save(path, contents),
        "looks.npy": lambda path: np.save(path, looks),
        "unreadable.json": lambda path: path.write_text(json.dumps(unreadable)),
    }
    key = {**whole, "first": indices.start, "last": indices.stop - 1, "looks": 1}
    return store.entry("images", key, lambda: writers)


def _digest64(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def _reason(error: BaseException, listing: Listing, index: int) -> str:
    """Why an image cannot be read; raises DataNotThere when that may pass."""
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        raise DataNotThere(
            f"cannot read image {listing.ids[index]} in {listing.where} ({error})",
            source=listing.where,
            fix="Check that it is mounted",
        ) from error
    return unreadable_reason(error)


def unreadable_reason(error: BaseException) -> str:
    """Why an image cannot be read, for people; `error` is one of UNREADABLE."""
    # the text of this one tells of a buffer
    return "no known kind of image" if isinstance(error, UnidentifiedImageError) else str(error)
