"""Made-up descriptors in a store, searched in this process; prints what that took as JSON."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import rel_entr

from benchmarks.descriptors import Size
from ftd.store import Store
from jobs.data.images import Images
from jobs.data.keyed import Bits
from jobs.data.listing import Listing
from jobs.descriptors import described, fitting
from jobs.descriptors.banks import bank
from jobs.descriptors.fitting import Bins, writers
from jobs.descriptors.histograms import EPSILON, shares, weights
from jobs.descriptors.neighbours import nearest
from jobs.descriptors.samples import Samples
from jobs.descriptors.search import Search
from jobs.params.descriptors import DescriptorParams
from tests.context import FolderContext

KINDS = 500  # of pictures: each row is mostly of one of them
SAME = 0.7
PIXELS = 96


def main(folder: str, size: Size) -> dict[str, Any]:
    """CPU seconds of search, product and definition, one per repeat, and the peak of memory."""
    torch.set_num_threads(1)
    context = FolderContext(Path(folder))
    wanted = DescriptorParams(bank="gabor", bins=size.bins, measure="kl", size=PIXELS)
    target, pool = _images(size.num_targets, 1), _images(size.num_pool, 2)
    bins = Bins(bank(wanted, PIXELS, context), _all(target), wanted, context.store, lambda *_: None)
    _fill(context.store, bins, [_all(target), _all(pool)], size)
    disk_bytes = sum(path.stat().st_size for path in Path(folder).glob("store/**/*.npy"))
    again: list[int] = []
    _counting(again)
    found: dict[str, Any] = {"search": [], "product": [], "definition": []}
    for _ in range(size.repeats):
        for kind in ("candidates", "neighbours"):
            shutil.rmtree(Path(folder) / "store" / kind, ignore_errors=True)
        search = partial(
            nearest, wanted, target, _all(target).indices, pool, _all(pool).indices, size.k,
            context, lambda: None,
        )  # fmt: skip
        found["search"].append(_seconds(search))
    found["again"] = sum(again) / (size.repeats * size.num_targets * size.num_pool)
    found["memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for _ in range(size.repeats):
        found["product"].append(_product_s(size))
        found["definition"].append(_definition_s(size))
    shutil.rmtree(Path(folder) / "store")
    return {**found, "disk_bytes": disk_bytes}


def _images(count: int, seed: int) -> Images:
    """Images that nobody looks at."""
    digests: Bits = np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)
    labels = np.zeros(count, np.int64)
    listing = Listing(("a",), tuple(map(str, range(count))), labels, _never, _never, "")
    return Images(listing, (), 1, digests, digests, digests, {}, PIXELS)


def _never(_asked: object) -> Any:
    raise LookupError("nobody looks at these images")


def _all(images: Images) -> Samples:
    return Samples(images, np.arange(len(images.listing)))


def _fill(store: Store, bins: Bins, several: list[Samples], size: Size) -> None:
    """Put edges and histograms into the store, where the search looks for them."""
    rng = np.random.default_rng(0)
    edges = [np.zeros((count, size.bins - 1), np.float32) for count in size.filters]
    store.entry(fitting.KIND, bins.key, lambda: writers(edges))
    kinds = []
    for count, positions in zip(size.filters, size.positions, strict=True):
        spread = rng.dirichlet(np.ones(size.bins), (KINDS, count)) ** rng.uniform(
            0, 2, (KINDS, 1, 1)
        )
        drawn = rng.multinomial(positions, spread / spread.sum(axis=2, keepdims=True))
        kinds.append(drawn.astype(np.min_scalar_type(positions)))
    for samples in several:
        for shard in samples.shards:
            key = {"bins": bins.key, "pixels": shard.pixels_sha256}
            kind = rng.integers(0, KINDS, (len(shard), 1))
            layers = [_mixed(of_layer, kind, rng) for of_layer in kinds]
            store.entry(described.KIND, key, partial(writers, layers))


def _mixed(
    kinds: npt.NDArray[Any], kind: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[Any]:
    """For each row filters mostly of its kind, the others of any."""
    shape = (len(kind), kinds.shape[1])
    chosen = np.where(rng.random(shape) < SAME, kind, rng.integers(0, KINDS, shape))
    return kinds[chosen, np.arange(shape[1])].reshape(len(kind), -1)


def _counting(again: list[int]) -> None:
    """Have the search tell how many pairs its bounds did not decide."""
    whole = Search._between

    def counting(self: Search, targets: Any, rows: Any, places: Any, pause: Any) -> Any:
        again.append(len(places))
        return whole(self, targets, rows, places, pause)

    Search._between = counting  # type: ignore[method-assign]


def _product_s(size: Size) -> float:
    """As many operations as the search needs at the least, on matrices of its blocks' shape."""
    width = 2 * sum(size.filters) * size.bins
    rows = min(1024, size.num_pool)
    one, other = torch.rand(size.num_targets, width), torch.rand(rows, width)
    return _seconds(lambda: one @ other.T) * size.num_pool / rows


def _definition_s(size: Size) -> float:
    """The element-wise definition with scipy, of some pairs; times as many as there are."""
    rng = np.random.default_rng(1)
    layers = [
        rng.integers(0, positions, (64, count * size.bins)).astype(np.uint16)
        for count, positions in zip(size.filters, size.positions, strict=True)
    ]
    rows = shares(layers, size.bins, 0.0) + EPSILON
    columns = weights(size.filters, size.bins)

    def some() -> None:
        for start in range(0, size.pairs, len(rows)):
            one, other = rows, np.roll(rows, start + 1, axis=0)
            (columns * (rel_entr(one, other) + rel_entr(other, one)) / 2).sum(axis=1)

    blocks = -(-size.pairs // len(rows))
    return _seconds(some) * size.num_targets * size.num_pool / (blocks * len(rows))


def _seconds(work: Callable[[], object]) -> float:
    """CPU time."""
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    size = Size(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }
    )
    print(json.dumps(main(sys.argv[1], size)))
