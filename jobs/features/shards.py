"""Features on disk: for some images, the vectors of several layers and poolings in one file.

A block of float32 rows per vector kind, and an index of where each begins; mapped, not read.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.job import Writer
from jobs.params.features import Pooling

Vectors = npt.NDArray[np.float32]
Part = tuple[int, Pooling]  # layer (0: what has no number) and pooling

BLOCKS = "features.bin"
INDEX = "index.json"
# What every pass computes of all layers: small, so that later runs need no pass of their own.
STANDARD = tuple(Pooling(grid=grid, by=by) for grid in (1, 2) for by in ("mean", "max"))


@dataclass(frozen=True)
class Bundle:
    """Vectors that lie in one entry: of all layers (None) or of one, under some poolings."""

    layer: int | None
    poolings: tuple[Pooling, ...]

    @classmethod
    def of(cls, part: Part) -> Bundle:
        """Where the vectors of `part` are."""
        layer, pooling = part
        return cls(None, STANDARD) if layer and pooling in STANDARD else cls.single(part)

    @classmethod
    def single(cls, part: Part) -> Bundle:
        """`part`, and nothing along with it."""
        layer, pooling = part
        return cls(layer, (pooling,))

    def as_json(self) -> dict[str, Any]:
        """What of an entry's key tells it from others."""
        names = [pooling.model_dump(mode="json") for pooling in self.poolings]
        return {"layer": self.layer, "poolings": names}

    def wants(self, layer: int) -> bool:
        """Whether anything of this layer is in it."""
        return self.layer in (None, layer)


class Spool:
    """Blocks while they are computed, in a file without a name: a killed process leaves none."""

    def __init__(self, num_rows: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._num_rows = num_rows
        self._end = 0
        self._blocks: dict[Part, tuple[int, int]] = {}  # offset in bytes, width
        self._same: dict[Part, Part] = {}  # vectors -> those they are equal to

    def add(self, part: Part, first_row: int, rows: Vectors) -> None:
        """Put `rows` (n, D) of `part` behind those before; D is always the same."""
        width = rows.shape[1]
        if part not in self._blocks:
            self._blocks[part] = self._end, width
            self._end += 4 * width * self._num_rows
        data = memoryview(rows.astype("<f4").tobytes())
        offset = self._blocks[part][0] + 4 * width * first_row
        while len(data):
            written = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[written:], offset + written

    def equate(self, part: Part, other: Part) -> None:
        """Say that the vectors of `part` are those of `other`, which is added."""
        self._same[part] = other

    def writers(self) -> Mapping[str, Writer]:
        """The entry's files."""
        return {BLOCKS: self._write_blocks, INDEX: self._write_index}

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def _write_blocks(self, path: Path) -> None:
        self._file.seek(0)
        with path.open("wb") as stream:
            shutil.copyfileobj(self._file, stream, 1 << 20)

    def _write_index(self, path: Path) -> None:
        named = {**{part: part for part in self._blocks}, **self._same}
        blocks = [
            [layer, pooling.grid, pooling.by, *self._blocks[real]]
            for (layer, pooling), real in named.items()
        ]
        path.write_text(json.dumps({"rows": self._num_rows, "blocks": blocks}))


class Shard:
    """An entry's vectors, to be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        told = json.loads((folder / INDEX).read_text())
        self.num_rows: int = told["rows"]
        self._blocks = {
            (layer, grid, by): (offset, width) for layer, grid, by, offset, width in told["blocks"]
        }

    def vectors(self, part: Part) -> Vectors | None:
        """Float32 (rows, D), mapped and read-only; None when that layer gives none."""
        layer, pooling = part
        found = self._blocks.get((layer, pooling.grid, pooling.by))
        if found is None:
            return None
        offset, width = found
        # not numpy's memmap, which makes each row dear, and itself too
        with open(self._folder / BLOCKS, "rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        vectors = np.frombuffer(mapped, "<f4", self.num_rows * width, offset)
        return vectors.reshape(self.num_rows, width)
