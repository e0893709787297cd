"""Networks of timm: numbered by its own groups, described without torch, drawn by identity."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from ftd.errors import UnknownName, WeightsError
from ftd.files import seal_json
from ftd.job import Input
from jobs import records, sources, timm_names
from jobs.finetune import Finetune
from jobs.layers import names_like, numbered, unpacked
from jobs.models.build import skeleton
from jobs.models.describe import describe
from jobs.models.dropout import DropoutKeys, KeyedDropPath
from jobs.models.exact import make_exact
from jobs.models.hub import FILES, hub_file
from jobs.models.network import Layer, layer_index
from jobs.models.numbering import classifier_of
from jobs.models.weights import load
from jobs.sources import WeightsFile
from tests.context import FolderContext
from tests.finetuning import params, torch_as_found
from tests.networks import network

timm = pytest.importorskip("timm")

# A small one of every family that is quickly built; others differ by their sizes.
FAMILIES = (
    "beit_base_patch16_224", "halonet26t", "test_byobnet", "cait_xxs24_224", "convit_tiny",
    "convmixer_768_32", "test_convnext", "cpubone_nano", "cs3darknet_s", "cspnext_tiny",
    "davit_tiny", "deit_tiny_patch16_224", "dla34", "dpn68", "edgenext_small",
    "test_efficientnet", "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224",
    "fasternet_t0", "fastvit_t8", "hardcorenas_a", "hgnet_tiny", "hiera_tiny_224",
    "sam2_hiera_tiny", "inception_next_atto", "lcnetv2_small", "lowformer_b0",
    "test_mambaout", "gmlp_ti16_224", "mobilenetv3_small_050", "mobilevit_xxs", "mvitv2_tiny",
    "naflexvit_base_patch16_siglip", "nest_tiny", "test_nfnet", "pvt_v2_b0", "resnest14d",
    "test_resnet", "resnetv2_18", "skresnet18", "starnet_s050", "swinv2_tiny_window8_256",
    "vgg11", "test_vit", "ese_vovnet19b_slim",
)  # fmt: skip
TINY = "timm/test_vit"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that knows the tiny network, so that no process need be asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = timm_names.cache_folder(timm.__version__) / "test_vit.json"
    path.parent.mkdir(parents=True)
    seal_json(path, describe(TINY))
    return path


def owners(module: nn.Module, layers: tuple[Layer, ...]) -> dict[str, int]:
    """The layer of every parameter and buffer, those that are not saved too."""
    tensors = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return {name: layer_index(layers, name) for name, _ in tensors}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_belongs_to_one_layer(name: str) -> None:
    """Parameters and buffers are partitioned into layers that keep timm's groups together.

    A training pass gives one score per class, and nothing in it draws but by image.
    """
    from timm.models import group_parameters

    module, layers = skeleton(f"timm/{name}", 13)
    owner = owners(module, layers)
    assert set(owner) >= set(module.state_dict())
    assert set(owner.values()) == set(range(len(layers)))
    assert len({layer.name for layer in layers}) == len(layers)

    classifier = classifier_of(module, layers, name)
    assert module.get_submodule(classifier) in module.get_classifier().modules()  # type: ignore
    last = [tensor for tensor in module.state_dict() if owner[tensor] == len(layers) - 1]
    assert {tensor.rpartition(".")[0] for tensor in last} == {classifier}

    groups = group_parameters(module, module.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    body = {tensor: group for tensor, group in groups.items() if tensor not in last}
    assert len({(owner[tensor], group) for tensor, group in body.items()}) >= len(layers) - 1
    for one, other in zip(body, list(body)[1:], strict=False):
        if body[one] == body[other]:
            assert owner[one] == owner[other]

    told = describe(f"timm/{name}")
    assert unpacked(told["layers"]) == tuple(layer.name for layer in layers)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_network", "timm has no network"),
        ("test_vit.no_such_tag", "cannot make"),
        ("ghostnet_050", r"random numbers in the network itself \(aten::bernoulli_"),
        ("efficientformer_l1", "has 2 classifiers, must be one"),
        ("pit_xs_224", "does not say how its parts are grouped"),
        ("test_vit_relpos", r"belongs to no one image \(dropout of block1"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, why: str) -> None:
    """No classifier of its own, no groups, or dropout that cannot be keyed: the reason is told."""
    assert re.search(why, describe(f"timm/{name}")["refused"])


def test_planning_asks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own describes a network; what it says is kept, and is all that is read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = (
        "import sys; from jobs import layers, records\n"
        f"print(*layers.numbered('{TINY}'), records.record('{TINY}').crop)\n"
        "assert not {'torch', 'torchvision', 'timm', 'numpy'} & set(sys.modules)\n"
    )

    def planner() -> list[str]:
        root = Path(sources.__file__).parents[1]
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, cwd=root, check=True, capture_output=True, text=True
        ).stdout.split()

    blocks = [f"block{number}" for number in range(1, 7)]
    assert planner() == ["stem", *blocks, "classifier", "160"]
    (kept,) = timm_names.cache_folder(timm.__version__).iterdir()
    told = json.loads(kept.read_text())
    kept.write_text(json.dumps(told | {"layers": "kept classifier"}))
    assert planner() == ["kept", "classifier", "160"]


def test_all_names_are_listed_without_asking_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patterns that begin with timm/ go through timm's names, which are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    everything = timm_names.timm_models()
    assert everything == tuple(f"timm/{name}" for name in sorted(timm.list_models()))
    assert names_like("timm/test_vi") == tuple(name for name in everything if "test_vi" in name)
    assert names_like("timm/vgg1?") == tuple(f"timm/vgg{depth}" for depth in (11, 13, 16, 19))
    monkeypatch.setattr(sys, "executable", "/nothing/can/be/asked")
    assert timm_names.timm_models() == everything


def test_a_refusal_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is asked about again: another version of ftd may know it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UnknownName, match=r"timm has no network 'test_vitt'.*test_vit"):
        numbered("timm/test_vitt")
    assert not timm_names.cache_folder(timm.__version__).exists()


def test_names_are_checked_before_anything_is_started() -> None:
    """What cannot be the name of a network asks nobody."""
    with pytest.raises(UnknownName, match="is no name of a network"):
        numbered("timm/../../etc")


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "hgnet_tiny"])
def test_preprocessing_is_the_published_weights(name: str) -> None:
    """Mean, deviation, sizes and interpolation are what timm itself would use."""
    from timm.data import create_transform, resolve_data_config

    told = describe(f"timm/{name}")["record"]
    model = timm.create_model(name)
    expected = resolve_data_config(model.pretrained_cfg)
    assert (told["mean"], told["std"]) == (list(expected["mean"]), list(expected["std"]))
    assert told["interpolation"] == expected["interpolation"]
    assert told["crop"] == expected["input_size"][1]
    resize = create_transform(**expected).transforms[0]
    assert told["resize"] == resize.size


@pytest.mark.usefixtures("kept")
def test_the_key_knows_package_and_weights() -> None:
    """timm's version is an input of its networks, its repository says which weights."""
    chosen = params(
        model={"name": TINY, "weights": "none"},
        layers="FT(1-)",
        target={"decode_size": 160, "crop_size": 160},
    )
    assert chosen.layers == "FT(1-8)"
    assert sources.inputs(TINY, "imagenet") == {"timm": Input("package", "timm")}
    assert sources.identity(TINY, "imagenet") == {"imagenet": "timm/test_vit.r160_in1k"}
    own = WeightsFile(file="/w.safetensors")
    assert set(sources.inputs(TINY, own)) == {"timm", "weights"}


@pytest.mark.usefixtures("kept")
def test_a_network_of_timms_is_fine_tuned(tmp_path: Path) -> None:
    """From a file, with a frozen beginning: it stays as it is, the rest is trained."""
    theirs = timm.create_model("test_vit", num_classes=3)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    wanted = params(
        model={"name": TINY, "weights": {"file": str(path)}},
        layers="F(1-last-1)R(last)",
        target={"decode_size": 160, "crop_size": 160, "val_per_class": 1, "per_class": 1},
        train={"epochs": 1, "schedule": "constant", "step_size_epochs": None, "crop": "none"},
    )
    with torch_as_found():
        completed = Finetune().run(wanted, FolderContext(tmp_path))
    assert completed.num_steps == 2
    trained = safetensors.torch.load_file(tmp_path / "artifacts" / "weights.safetensors")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(trained[name], tensor) == (not name.startswith("head.")), name


@pytest.mark.usefixtures("kept")
def test_local_weights_give_the_same_outputs(tmp_path: Path) -> None:
    """Our network with a file of timm's tensors computes what timm's network computes."""
    theirs = timm.create_model("test_vit", num_classes=3).eval()
    path = tmp_path / "w.safetensors"
    state = {f"net.{name}": tensor for name, tensor in theirs.state_dict().items()}
    safetensors.torch.save_file(state, path)
    weights = WeightsFile(file=str(path), key_map={"net.": ""})
    ours = network(TINY, "F(1-)", load(TINY, weights, allow_downloads=False))
    ours.eval()
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_stochastic_depth_is_drawn_by_image() -> None:
    """timm's own module is replaced by one that drops the branches of the same images."""
    from timm.layers import DropPath

    module = nn.Sequential(nn.Conv2d(3, 3, 1), DropPath(0.5), nn.Linear(4, 2))
    layers = (Layer("stem", ("0", "1")), Layer("classifier", ("2",)))
    drop_keys = DropoutKeys(1, 7, torch.arange(64))
    make_exact(module, layers, drop_keys)
    together = module[1](torch.ones(64, 3, 2, 2))
    assert isinstance(module[1], KeyedDropPath)
    assert 16 < int((together == 0).all(dim=(1, 2, 3)).sum()) < 48
    drop_keys.sample_keys, drop_keys.uses = torch.arange(64)[5:9], Counter()
    assert torch.equal(module[1](torch.ones(4, 3, 2, 2)), together[5:9])


# published weights


def published(cache: Path, repository: str, content: bytes, name: str) -> Path:
    """A file in the hub's cache as its own client keeps it: by digest, behind a link."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    kept = folder / "blobs" / name
    link = folder / "snapshots" / "abc" / FILES[0]
    for path in (kept, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)
    link.symlink_to(kept)
    (folder / "refs" / "main").write_text("abc")
    return link


@pytest.mark.usefixtures("kept")
def test_published_weights_are_found_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub's client downloaded is used; under another digest it is refused."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    path = tmp_path / "w.safetensors"
    theirs = timm.create_model("test_vit")
    safetensors.torch.save_file(theirs.state_dict(), path)
    content = path.read_bytes()
    repository = records.record(TINY).hub
    assert repository is not None
    link = published(tmp_path, repository, content, sha256(content).hexdigest())
    assert hub_file(TINY, repository, allow_downloads=False) == link
    state = load(TINY, "imagenet", allow_downloads=False)
    assert state is not None and set(state) == set(theirs.state_dict())
    published(tmp_path, "timm/other", content, "0" * 64)
    with pytest.raises(WeightsError, match="must begin with 0000"):
        hub_file(TINY, "timm/other", allow_downloads=False)


@pytest.mark.usefixtures("kept")
def test_missing_published_weights_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission to download, the error names command, folder and setting."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        load(TINY, "imagenet", allow_downloads=False)
    for said in ("hf download timm/test_vit.r160_in1k", str(tmp_path), "allow_downloads", "file:"):
        assert said in str(error.value)
