"""Features of images, from the store or by one pass through the network.

The store holds them in shards, each an entry of its own: an interrupted pass goes on behind the
last whole shard, and several processes share the work.  With all of them there, neither weights
nor network are loaded, and torch is not imported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftd.errors import InputError
from ftd.job import Context
from jobs.data.images import Images
from jobs.data.keyed import Indices
from jobs.features.fingerprint import fingerprint
from jobs.features.seeing import Pass, Seeing
from jobs.features.shards import Bundle, Part, Shard, Vectors
from jobs.features.views import ORIGINAL, View
from jobs.params.features import Pooling

if TYPE_CHECKING:
    from jobs.features.shards import Spool

# The batch's geometry is part of the numbers, so it is fixed, as for validation.
BATCH_SIZE = {"cpu": 16, "cuda": 128}
SHARD = 256  # images: whole batches, and little enough work to lose
MAX_SHARDS = 512  # each mapped file costs a descriptor
# Of a large listing few samples may be wanted: then only they are looked at, in shards of their
# own, which only runs on the same samples share.
LARGE = 8192
FEW = 1 / 8

NUM_FORWARDS = "features/num_forwards"


@dataclass(frozen=True)
class Features:
    """The features of some samples of a listing.

    ``indices`` (int64, ascending) are the samples; ``num_forwards`` is how many images went
    through the network in this attempt to have them.
    """

    indices: Indices
    num_forwards: int
    _shards: Sequence[Indices]
    _folders: Mapping[tuple[str, Bundle], Sequence[Path]]
    _held_in: Callable[[Part], Bundle] = Bundle.of
    _where: str = field(default="")
    _opened: dict[tuple[Path, Part], Vectors | None] = field(default_factory=dict, repr=False)

    def matrix(self, layer: int, pooling: Pooling, view: View = ORIGINAL) -> Vectors:
        """Float32 (N, D): a row per sample in :attr:`indices`, only to be read.

        Mapped into memory where the samples are one whole shard, else a copy.
        """
        if len(self._shards) == 1 and np.array_equal(self._shards[0], self.indices):
            return self._vectors(0, (layer, pooling), view)
        return self.rows(layer, pooling, self.indices, view)

    def rows(
        self, layer: int, pooling: Pooling, indices: Indices, view: View = ORIGINAL
    ) -> Vectors:
        """Float32 (n, D): a row per sample `indices` of the listing, in their order, a copy.

        Raises LookupError for a sample that is none of :attr:`indices`.
        """
        places = np.minimum(np.searchsorted(self._covered, indices), len(self._covered) - 1)
        if not np.array_equal(self._covered[places], indices):
            raise LookupError("features of samples that were not asked for")
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        width = self._vectors(0, (layer, pooling), view).shape[1]
        found = np.empty((len(indices), width), np.float32)
        for number in np.unique(numbers).tolist():
            inside = numbers == number
            vectors = self._vectors(number, (layer, pooling), view)
            found[inside] = vectors[places[inside] - self._starts[number]]
        return found

    @cached_property
    def _covered(self) -> Indices:
        """The samples of all shards."""
        return np.concatenate(self._shards)

    @cached_property
    def _starts(self) -> Indices:
        """Where each shard begins among them."""
        return np.cumsum([0, *map(len, self._shards[:-1])])

    def _vectors(self, number: int, part: Part, view: View) -> Vectors:
        folder = self._folders[view.name, self._held_in(part)][number]
        if (folder, part) not in self._opened:
            self._opened[folder, part] = Shard(folder).vectors(part)
        found = self._opened[folder, part]
        if found is None:
            raise InputError(
                f"{self._where} gives no single map of features behind layer {part[0]}",
                where="features.layer",
                fix="Choose another layer",
            )
        return found


def features(
    backbone: Seeing,
    images: Images,
    crop_size: int,
    layers: Sequence[int],
    poolings: Sequence[Pooling],
    context: Context,
    *,
    wanted: Indices | None = None,
    progress: Callable[[int, int], None],
    views: Sequence[View] = (ORIGINAL,),
    also: Sequence[Part] = (),
    alone: bool = False,
    single: bool = False,
) -> Features:
    """What each of `layers` says about the samples `wanted` (None: all).

    Layers are numbers from 1; 0 is what the classifier reads.  Under each of `poolings` and in each
    of `views`; what is missing is computed in one pass, which then computes of `also` what is
    missing too.  `progress(done, total)` counts images and may raise to leave.  `alone`: look at no
    other samples than those wanted, as nobody else will want these views.  `single`: keep what was
    asked for and nothing of other layers, which is not little where the images are many.  Raises
    InputError for a layer that gives no map.
    """
    held_in = Bundle.single if single else Bundle.of
    asked = _bundles([(layer, pooling) for layer in layers for pooling in poolings], held_in)
    work = _Work(backbone, images, crop_size, context, progress)
    members = np.arange(len(images.listing)) if wanted is None else np.unique(wanted)
    shards = _sharded(members, images, alone)
    folders: dict[tuple[str, Bundle], list[Path]] = {
        (view.name, bundle): [Path()] * len(shards) for view in views for bundle in asked
    }
    work.num_images = len(views) * sum(map(len, shards))
    for number in _from_somewhere(len(shards)):
        for view in views:
            found = work.entries(shards[number], view, asked, _bundles(also, held_in))
            for bundle, folder in found.items():
                folders[view.name, bundle][number] = folder
    context.timing(NUM_FORWARDS, float(work.num_forwards), 0)
    return Features(members, work.num_forwards, shards, folders, held_in, backbone.name)


def _bundles(parts: Sequence[Part], held_in: Callable[[Part], Bundle]) -> tuple[Bundle, ...]:
    """The bundles that hold `parts`, each once."""
    return tuple(dict.fromkeys(map(held_in, parts)))


def _sharded(members: Indices, images: Images, alone: bool) -> list[Indices]:
    """The samples of each shard: whole stretches of the listing, or only the few that count."""
    number = len(images.listing)
    size = next(
        (size for size in (SHARD, 2 * SHARD, 4 * SHARD) if size * MAX_SHARDS >= number),
        images.shard_size,
    )
    if alone or (number > LARGE and len(members) < FEW * number):
        return np.array_split(members, range(size, len(members), size))
    # a stretch never reaches into images that are not decoded: theirs are multiples of it
    starts = np.unique(members // size) * size
    return [np.arange(start, min(start + size, number)) for start in starts.tolist()]


def _from_somewhere(number: int) -> Iterator[int]:
    """0 .. number - 1, from another place on in each process: they seldom wait for one another."""
    start = os.getpid() % number if number else 0
    return iter([*range(start, number), *range(start)])


class _Work:
    """Having the entries of one backbone for one dataset."""

    def __init__(
        self,
        backbone: Seeing,
        images: Images,
        crop_size: int,
        context: Context,
        progress: Callable[[int, int], None],
    ) -> None:
        self.num_forwards = 0
        self.num_images = 0
        self._backbone = backbone
        self._images = images
        self._crop_size = crop_size
        self._context = context
        self._progress = progress
        self._num_done = 0
        self._batch_size = BATCH_SIZE[context.device]
        self._whole = {
            "backbone": dict(backbone.identity),
            "size": images.size,
            "crop_size": crop_size,
            "numerics": fingerprint(context),
            "batch_size": self._batch_size,
        }

    @cached_property
    def _forward(self) -> Pass:
        device = self._context.device
        return self._backbone.forward(self._images, self._crop_size, self._batch_size, device)

    def entries(
        self, indices: Indices, view: View, asked: Sequence[Bundle], also: Sequence[Bundle]
    ) -> dict[Bundle, Path]:
        """The folder of each bundle of the samples `indices`, those of `asked` at least."""
        pixels = hashlib.sha256(self._images.pixel_digests[indices].tobytes()).hexdigest()
        store = self._context.store
        spools: dict[Bundle, Spool] = {}

        def key(bundle: Bundle) -> dict[str, Any]:
            return {**self._whole, "pixels": pixels, "view": view.name, **bundle.as_json()}

        def made(bundle: Bundle) -> Mapping[str, Callable[[Path], None]]:
            if bundle not in spools:
                missing = [
                    other
                    for other in dict.fromkeys([*asked, *also])
                    if other == bundle or not store.has("features", key(other))
                ]
                spools.update(self._passed(indices, view, missing))
            return spools[bundle].writers()

        try:
            found = {
                bundle: store.entry("features", key(bundle), partial(made, bundle))
                for bundle in asked
            }
            for bundle in [bundle for bundle in spools if bundle not in found]:
                store.entry("features", key(bundle), partial(made, bundle))
        finally:
            for spool in spools.values():
                spool.close()
        if not spools:  # a run has the same places to leave whether it computes or not
            for start in range(0, len(indices), self._batch_size):
                self._told(min(start + self._batch_size, len(indices)))
        self._num_done += len(indices)
        return found

    def _told(self, done: int) -> None:
        """Say that `done` images of the current shard are there."""
        self._progress(self._num_done + done, self.num_images)

    def _passed(
        self, indices: Indices, view: View, bundles: Sequence[Bundle]
    ) -> Mapping[Bundle, Spool]:
        """The vectors of the samples, computed."""
        folder = self._context.store.scratch / "features"
        found = self._forward(indices, view, bundles, folder, self._told)
        self.num_forwards += len(indices)
        return found
