"""Images decoded once: uint8 arrays in the store, mapped into memory and gathered by index.

The store holds them in shards, each an entry of its own: an interrupted decoding goes on behind
the last whole shard, and several processes share the work.
"""

from __future__ import annotations

import hashlib
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
from jobs.data.keyed import Bits
from jobs.data.listing import Listing
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

    ``shards`` are uint8 (n, size, size, 3), n = ``shard_size`` but for the last;  ``digests``
    (uint64, N) identify the samples by content; they are distinct.
    """

    listing: Listing
    shards: Sequence[Pixels]
    shard_size: int
    digests: Bits

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return int(self.shards[0].shape[1])

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
) -> Images:
    """The images of `listing` as squares of `size` pixels, from `store` or decoded into it.

    `fingerprint` is that of the dataset's input; `progress(done, total)` is called after each
    shard and may raise to leave.  Raises DataError naming the first image that cannot be read,
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
    shards, contents = [], []
    for start in range(0, len(listing), shard_size):
        stop = min(start + shard_size, len(listing))
        folder = _shard(store, whole, listing, range(start, stop), threads)
        shards.append(np.load(folder / "images.npy", mmap_mode="r"))
        contents.append(np.load(folder / "contents.npy"))
        progress(stop, len(listing))
    return Images(listing, shards, shard_size, sample_digests(np.concatenate(contents)))


def sample_digests(contents: npt.NDArray[np.uint8]) -> Bits:
    """A distinct uint64 per sample from its content's SHA-256 (uint8, (N, 32)).

    The n-th sample of the same content gets a digest of (content, n); n counts in listing order.
    """
    digests = contents[:, :8].copy().view(">u8").reshape(-1).astype(np.uint64)
    occurrences: dict[int, int] = {}
    for index, digest in enumerate(digests.tolist()):
        n = occurrences.get(digest, 0)
        occurrences[digest] = n + 1
        if n:
            again = hashlib.sha256(contents[index].tobytes() + n.to_bytes(8, "big")).digest()
            digests[index] = int.from_bytes(again[:8], "big")
    return digests


def _shard(
    store: Store, whole: Mapping[str, Any], listing: Listing, indices: range, threads: int
) -> Path:
    """The store's folder with images.npy and contents.npy (SHA-256 of the stored bytes)."""
    size, interpolation = whole["size"], whole["interpolation"]

    def decode(index: int) -> tuple[Pixels, bytes]:
        try:
            content = listing.content(index)
            image = square(listing.image(content), size, interpolation)
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno in UNREACHABLE:
                raise DataNotThere(
                    f"cannot read image {listing.ids[index]} in {listing.where} ({error})",
                    source=listing.where,
                    fix="Check that it is mounted",
                ) from error
            unknown = isinstance(error, UnidentifiedImageError)  # its text tells of a buffer
            reason = "no known kind of image" if unknown else error
            raise DataError(
                f"cannot read image {listing.ids[index]} ({reason})",
                where=listing.where,
                fix="Replace or remove it",
            ) from error
        return image, hashlib.sha256(content).digest()

    def write_images(path: Path) -> None:
        # Written, not mapped: a disk that fills up under a mapped file kills the process.
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(indices), size, size, 3)}
        with path.open("wb") as stream, ThreadPoolExecutor(threads) as pool:
            np.lib.format.write_array_header_1_0(stream, header)
            for row, (image, digest) in enumerate(pool.map(decode, indices)):
                stream.write(image.tobytes())
                contents[row] = np.frombuffer(digest, np.uint8)

    def write_contents(path: Path) -> None:
        np.save(path, contents)

    contents = np.zeros((len(indices), 32), np.uint8)
    key = {**whole, "first": indices.start, "last": indices.stop - 1}
    # The order matters: contents are known once the images are decoded.
    writers = {"images.npy": write_images, "contents.npy": write_contents}
    return store.entry("images", key, lambda: writers)
