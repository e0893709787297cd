"""The nearest images of a pool: from the definition, computed once, resumable anywhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftd import faults
from ftd.errors import DataError, WeightsError
from ftd.faults import Trap
from ftd.job import Stopped
from jobs.data.digits import digits_listing
from jobs.data.images import Images, decoded
from jobs.data.prepare import Data
from jobs.data.splits import Splits
from jobs.data.union import united
from jobs.descriptors import neighbours, samples, search
from jobs.descriptors.banks import bank
from jobs.descriptors.described import Histograms
from jobs.descriptors.divergence import as_told, distances, prepared
from jobs.descriptors.fitting import Bins
from jobs.descriptors.neighbours import Nearest, nearest
from jobs.descriptors.samples import Samples
from jobs.features.backbone import Backbone, backbone
from jobs.features.extract import features
from jobs.params.descriptors import DescriptorParams, resolved
from jobs.params.model import ModelParams
from tests.context import FolderContext, Killed

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

SIZE = 20
TARGETS, POOL = np.arange(30), np.arange(30, 130)
SMALL: dict[str, Any] = {"bins": 8}
MINI8 = ModelParams(name="mini8", weights="none")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """130 digits of 20 pixels."""
    whole = digits_listing()
    listing = replace(whole, ids=whole.ids[:130], labels=whole.labels[:130])
    store = FolderContext(tmp_path_factory.mktemp("images")).store
    return decoded(
        listing, "digits", SIZE, "bilinear", store=store, threads=1, progress=lambda *_: None
    )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four shards, three stretches, two blocks of targets."""
    monkeypatch.setattr(samples, "SHARD", 32)
    monkeypatch.setattr("jobs.descriptors.described.SHARD", 32)
    monkeypatch.setattr(neighbours, "STRETCH", 40)
    monkeypatch.setattr(search, "MOST_ROWS", 16)
    monkeypatch.setattr(search, "ELEMENTWISE_ROWS", 16)


def asked(**given: Any) -> DescriptorParams:
    return resolved(DescriptorParams(**{**SMALL, **given}), MINI8, 28, Path("/"))


def found_in(
    root: Path,
    images: Images,
    wanted: DescriptorParams | None = None,
    k: int = 7,
    *,
    targets: Any = TARGETS,
    pool: Any = POOL,
    pool_images: Images | None = None,
    pause: Callable[[], None] = lambda: None,
    **changes: Any,
) -> Nearest:
    root.mkdir(exist_ok=True, parents=True)
    return nearest(
        wanted or asked(), images, targets, pool_images or images, pool, k,
        FolderContext(root, **changes), pause,
    )  # fmt: skip


def equal(one: Nearest, other: Nearest) -> bool:
    return one.indices.tobytes() == other.indices.tobytes() and (
        one.distances.tobytes() == other.distances.tobytes()
    )


def entries(root: Path) -> dict[str, int]:
    """How many entries of each kind the store has."""
    folders = [path.parent.parent.name for path in root.glob("store/*/*/manifest.json")]
    return {kind: folders.count(kind) for kind in sorted(set(folders))}


def by_definition(root: Path, images: Images, wanted: DescriptorParams, k: int) -> Any:
    """Rows and distances of the k nearest, all pairs compared one by one."""
    context = FolderContext(root)
    if wanted.bank == "deep":
        network = backbone(MINI8, context)
        layer, pooling = int(wanted.features.layer), wanted.features.pooling
        rows = features(
            network, images, SIZE, [layer], [pooling], context, progress=lambda *_: None
        ).matrix(layer, pooling).astype(np.float64)  # fmt: skip
        ours, theirs, weights = rows[TARGETS], rows[POOL], np.ones(rows.shape[1])
    else:
        bins = Bins(
            bank(wanted, SIZE, context), Samples(images, TARGETS), wanted, context.store,
            lambda *_: None,
        )  # fmt: skip
        described = [
            Histograms(Samples(images, part), bins, lambda *_: None) for part in (TARGETS, POOL)
        ]
        ours, theirs = (one.rows(np.arange(len(one.samples))) for one in described)
        weights = described[0].weights
    measure = wanted.measure
    assert measure is not None
    ours, theirs = prepared(measure, ours), prepared(measure, theirs)
    exact = np.stack(
        [distances(measure, ours[:, i : i + 1], theirs, weights) for i in range(len(TARGETS))]
    )
    digests = np.broadcast_to(images.digests[POOL], exact.shape)
    order = np.lexsort((digests, exact), axis=1)[:, :k]
    return POOL[order], as_told(measure, np.take_along_axis(exact, order, 1))


@pytest.mark.parametrize(
    "given",
    [
        {}, {"measure": "js"}, {"measure": "l1"}, {"measure": "chi2"}, {"bank": "gabor"},
        {"bank": "deep"}, {"bank": "deep", "measure": "l2"}, {"smoothing": 0.05},
        {"binning": "equal_width"},
    ],
    ids=str,
)  # fmt: skip
def test_neighbours_are_those_of_the_definition(
    tmp_path: Path, images: Images, given: dict[str, Any]
) -> None:
    """Every bank and measure: the same rows in the same order, and the distances."""
    wanted = asked(**given)
    found = found_in(tmp_path, images, wanted)
    assert found.indices.dtype == np.int32 and found.distances.dtype == np.float32
    rows, exact = by_definition(tmp_path, images, wanted, 7)
    assert np.array_equal(found.indices, rows)
    np.testing.assert_allclose(found.distances, exact, rtol=1e-4, atol=1e-6)


def test_each_parameter_matters(tmp_path: Path, images: Images) -> None:
    """Another bank, network, layer, number of bins, binning, smoothing, measure or size finds
    other neighbours or distances."""
    given: list[dict[str, Any]] = [
        {}, {"bins": 9}, {"binning": "equal_width"}, {"smoothing": 0.05}, {"measure": "js"},
        {"size": 16}, {"bank": "gabor"}, {"bank": "gabor", "size": 16}, {"bank": "deep"},
        {"bank": "deep", "features": {"layer": "3"}}, {"bank": "deep", "measure": "l2"},
        {"bank": "deep", "size": 16}, {"model": {"name": "mini8-w2", "weights": "none"}},
    ]  # fmt: skip
    found = [found_in(tmp_path, images, asked(**one)) for one in given]
    assert len({one.distances.tobytes() for one in found}) == len(given)


def test_a_picture_is_nearest_to_itself(tmp_path: Path, images: Images) -> None:
    """In a pool that holds the targets; the order of targets is that asked for."""
    targets = np.array([5, 3, 29, 5])
    for given in ({}, {"bank": "gabor"}, {"bank": "deep"}):
        found = found_in(tmp_path, images, asked(**given), 2, targets=targets, pool=np.arange(60))
        assert found.indices[:, 0].tolist() == targets.tolist()
        assert (found.distances[:, 0] < 1e-6).all() and (np.diff(found.distances) >= 0).all()


def test_equally_near_pictures_are_ordered_by_content(tmp_path: Path, images: Images) -> None:
    """Many copies of one picture: the ones with the least digests, wherever they stand, also where
    more candidates are needed than first thought."""
    copies = np.arange(30, 100)
    shard = images.shards[0].copy()
    shard[copies] = shard[40]
    pixels = images.pixel_digests.copy()
    pixels[copies] = pixels[40]
    digests = images.digests.copy()
    digests[copies] = np.random.default_rng(0).permutation(digests[copies])
    same = replace(images, shards=[shard], pixel_digests=pixels, digests=digests)
    found = found_in(tmp_path, same, k=9, targets=np.array([40, 3]), pool=np.arange(20, 130))
    assert found.indices[0].tolist() == copies[np.argsort(digests[copies])][:9].tolist()
    assert not found.distances[0].any()
    assert entries(tmp_path)["candidates"] > 3, "some were searched for again"
    other = replace(same, digests=images.digests)  # in the same store
    found = found_in(tmp_path, other, k=9, targets=np.array([40, 3]), pool=np.arange(20, 130))
    assert found.indices[0].tolist() == copies[np.argsort(images.digests[copies])][:9].tolist()


def test_the_second_run_computes_nothing(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a network is built; another k or measure shares the descriptors."""
    whole = found_in(tmp_path, images)
    assert entries(tmp_path) == {
        "bins": 1, "candidates": 6, "descriptors": 1 + 4, "neighbours": 2,
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "network", property(lambda _: pytest.fail("not needed")))
        assert equal(found_in(tmp_path, images), whole)
        fewer = found_in(tmp_path, images, k=5)
        found_in(tmp_path, images, asked(measure="l1"))
    assert np.array_equal(fewer.indices, whole.indices[:, :5])
    assert entries(tmp_path)["descriptors"] == 5


def test_blocks_change_nothing(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other shards, stretches and blocks find the same rows."""
    one = found_in(tmp_path / "a", images)
    monkeypatch.setattr(neighbours, "STRETCH", 8192)
    monkeypatch.setattr(search, "MOST_ROWS", 1024)
    monkeypatch.setattr(samples, "SHARD", 64)
    monkeypatch.setattr("jobs.descriptors.described.SHARD", 64)
    other = found_in(tmp_path / "b", images)
    assert np.array_equal(one.indices, other.indices)
    assert entries(tmp_path / "b")["candidates"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"targets": np.arange(29)}, {"pool": np.arange(31, 130)}, {"seeds": {"init": 5}},
        {"threads": 2}, {"numerics": "fast"}, {"k": 6},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_could_change_the_result_is_in_the_key(
    tmp_path: Path, images: Images, change: dict[str, Any]
) -> None:
    """Other images, weights, numerics or k are other entries."""
    found_in(tmp_path, images)
    before = entries(tmp_path)["neighbours"]
    found_in(tmp_path, images, **change)
    assert entries(tmp_path)["neighbours"] == 2 * before


def test_bins_are_fitted_on_the_targets_given(tmp_path: Path, images: Images) -> None:
    """Other pictures of the target's dataset, as those it is tested on, change nothing."""
    whole = found_in(tmp_path / "a", images)
    shard = images.shards[0].copy()
    shard[30:] = 255 - shard[30:]
    other = replace(images, shards=[shard])
    assert equal(found_in(tmp_path / "b", other, pool_images=images), whole)
    fewer = found_in(tmp_path / "a", images, targets=TARGETS[:10])
    assert not np.array_equal(fewer.distances, whole.distances[:10])


# --- leaving and coming back ----------------------------------------------------------------------


class Places:
    """Counts the places to leave, and leaves at one of them in one way or another."""

    def __init__(self, at: int = 0, leave: type[BaseException] = Killed) -> None:
        self.count, self._at, self._leave = 0, at, leave

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._at:
            raise self._leave


@pytest.mark.parametrize("given", [{}, {"bank": "deep"}], ids=str)
def test_a_killed_search_goes_on(tmp_path: Path, images: Images, given: dict[str, Any]) -> None:
    """Left or killed at any place, then resumed: the same neighbours, nothing sealed is lost."""
    counting = Places()
    whole = found_in(tmp_path / "whole", images, asked(**given), pause=counting)
    assert counting.count > 20 if not given else counting.count > 5
    for at in range(1, counting.count + 1, 5):
        root = tmp_path / str(at)
        with pytest.raises((Killed, Stopped)):
            found_in(root, images, asked(**given), pause=Places(at, Killed if at % 2 else Stopped))
        before = {path: path.stat().st_ino for path in root.glob("store/*/*/manifest.json")}
        assert equal(found_in(root, images, asked(**given)), whole)
        assert all(path.stat().st_ino == inode for path, inode in before.items())
        assert not [path for path in root.glob("store/*/.*") if path.is_dir()]


@pytest.mark.parametrize(
    "point", ["folder.payload@4", "folder.manifest@5", "folder.payload@20", "folder.renamed@9"]
)
def test_a_sigkill_changes_nothing(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Inside a shard of descriptors and inside a stretch of the search, at the named points."""
    whole = found_in(tmp_path / "whole", images)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(faults, "_TRAP", Trap(point, None))
        found_in(tmp_path / "killed", images)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert sum(entries(tmp_path / "killed").values()) < sum(entries(tmp_path / "whole").values())
    assert equal(found_in(tmp_path / "killed", images), whole)


def test_progress_is_shown(tmp_path: Path, images: Images) -> None:
    """What is done of describing and of searching."""
    context = FolderContext(tmp_path)
    nearest(asked(), images, TARGETS, images, POOL, 3, context, lambda: None)
    shown = [row for row in context.shown if row["step"] == 0]
    keys = {key for row in shown for key in row} - {"step", "num_steps"}
    assert keys == {"describing", "searching"}
    searching = [row["searching"] for row in shown if "searching" in row]
    assert searching[-1] == "30/30" and "6/30" in searching


# --- what cannot work -----------------------------------------------------------------------------


def test_a_pool_that_is_too_small_is_refused(tmp_path: Path, images: Images) -> None:
    """So are images of another size; everybody may be asked for."""
    with pytest.raises(DataError, match="101 neighbours are asked for, and there are 100 images"):
        found_in(tmp_path, images, k=101)
    with pytest.raises(DataError, match="decoded to 20 pixels, those of the pool to 24"):
        found_in(tmp_path, images, pool_images=replace(images, size=24))
    everyone = found_in(tmp_path, images, k=100)
    assert np.array_equal(np.sort(everyone.indices, axis=1), np.tile(POOL, (30, 1)))


@pytest.mark.parametrize("given", [{}, {"bank": "deep"}], ids=str)
def test_weights_that_diverged_are_refused(
    tmp_path: Path, images: Images, given: dict[str, Any]
) -> None:
    """Responses and features must be numbers."""
    from safetensors.torch import save_file

    from tests.networks import network

    state = network("mini8").state()
    save_file(
        {name: tensor * torch.nan for name, tensor in state.items()}, tmp_path / "w.safetensors"
    )
    model = {"name": "mini8", "weights": {"file": str(tmp_path / "w.safetensors")}}
    with pytest.raises(WeightsError, match="not finite"):
        found_in(tmp_path, images, asked(model=model, **given))


def test_a_pool_of_several_datasets(tmp_path: Path, images: Images) -> None:
    """Rows are those of the united listing, and neighbours the same as in one dataset."""
    parts = []
    for rows in (np.arange(30, 80), np.arange(80, 130)):
        listing = replace(
            images.listing,
            ids=tuple(images.listing.ids[row] for row in rows),
            labels=images.listing.labels[rows],
        )
        nobody = np.array([], np.int64)
        part = replace(
            images, listing=listing, shards=[images.shards[0][rows]], digests=images.digests[rows],
            pixel_digests=images.pixel_digests[rows], hashes=images.hashes[rows],
        )  # fmt: skip
        parts.append(Data(part, Splits(np.arange(len(rows)), nobody, nobody), (), {}))
    pool = united(parts)
    for given in ({}, {"bank": "deep"}):
        one = found_in(tmp_path / "a", images, asked(**given))
        both = found_in(
            tmp_path / "b", images, asked(**given), pool=np.arange(100), pool_images=pool.images
        )
        assert np.array_equal(both.indices + 30, one.indices)
