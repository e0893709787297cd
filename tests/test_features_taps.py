"""What layers say: taps and pooling, for networks of every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ftd.errors import InputError
from jobs import records
from jobs.features.pooling import effective, pooled
from jobs.features.taps import Output, Taps
from jobs.layers import numbered
from jobs.models import zoo
from jobs.models.network import Network
from jobs.params.features import FeaturesParams, Pooling, layer_number, resolved
from jobs.params.model import ModelParams
from jobs.sources import WeightsFile, WeightsRun
from tests.networks import imagenet_state, network

MODELS = [
    *(family.models[0] for family in zoo.FAMILIES),
    *("alexnet", "vgg11_bn", "efficientnet_lite0", "mini8", "swin_v2_t"),
]
OF_TIMM = [
    f"timm/{name}"
    for name in (
        "resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto",
        "mixer_s32_224", "cait_xxs24_224", "eva02_tiny_patch14_224", "mambaout_femto",
    )
]  # fmt: skip
MEAN, MAX = Pooling(), Pooling(by="max")


def size_for(model: str) -> int:
    known = records.record(model)
    return known.crop if known.only else max(known.least, 64)


def pictures(size: int, number: int = 2) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(5))


def heard(net: Network, images: torch.Tensor) -> tuple[dict[int, Output], torch.Tensor]:
    """Copies of all layers' outputs, and the logits."""
    found: dict[int, Output] = {}

    def receive(number: int, output: Output) -> None:
        token = None if output.token is None else output.token.clone()
        found[number] = Output(output.map.clone(), token)

    net.eval()
    logits = Taps(net, images.shape[-1])(images, receive)
    return found, logits


@pytest.mark.parametrize("model", [*MODELS, *OF_TIMM])
def test_listening_changes_nothing(model: str) -> None:
    """The logits are those of the network alone, bit for bit; every layer is heard, as a map."""
    if model in OF_TIMM:
        pytest.importorskip("timm")
    net = network(model)
    net.eval()
    images = pictures(size_for(model))
    with torch.inference_mode():
        alone = net(images)
    found, logits = heard(net, images)
    assert torch.equal(logits, alone)
    assert sorted(found) == list(range(1, len(numbered(model)) + 1))
    assert torch.equal(found[len(found)].map[:, :, 0, 0], alone)
    for output in found.values():
        assert output.map.dim() == 4 and output.map.shape[2] == output.map.shape[3]
        assert output.map.isfinite().all()
    sides = [found[number].map.shape[2] for number in sorted(found)]
    assert max(sides[:3]) > 1 and sides[-1] == 1
    assert not [hook for part in net.module.modules() for hook in part._forward_hooks]
    assert not [hook for part in net.module.modules() for hook in part._forward_pre_hooks]


def test_alexnet_by_hand() -> None:
    """Its layers say what torchvision's modules, called one after the other, compute."""
    net = network("alexnet")
    images = pictures(96)
    found, _ = heard(net, images)
    features, classifier = (net.module.get_submodule(name) for name in ("features", "classifier"))
    with torch.inference_mode():
        conv1 = functional.max_pool2d(functional.relu(features[0](images)), 3, 2)
        rest = features[3:](conv1)
        conv5 = functional.adaptive_avg_pool2d(rest, (6, 6))
        fc6 = functional.relu(classifier[1](conv5.flatten(1)))
        fc7 = functional.relu(classifier[4](fc6))
    torch.testing.assert_close(found[1].map, conv1)
    torch.testing.assert_close(found[5].map, conv5)
    torch.testing.assert_close(found[6].map[:, :, 0, 0], fc6)
    torch.testing.assert_close(found[7].map[:, :, 0, 0], fc7)
    assert found[7].map.shape == (2, 4096, 1, 1) and (fc7 == 0).any()


@pytest.mark.parametrize("model", ["resnet18", "efficientnet_lite0", "densenet121", "swin_t"])
def test_the_mean_of_the_last_map_is_what_the_classifier_sees(model: str) -> None:
    """The classifier's input is the 1x1 mean of the output of the layer before it."""
    net = network(model)
    seen: list[torch.Tensor] = []
    last = [part for part in net.module.modules() if isinstance(part, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _part, given: seen.append(given[0].clone()))
    found, _ = heard(net, pictures(size_for(model)))
    before = found[len(net.layers) - 1]
    assert before.map.shape[2] > 1
    torch.testing.assert_close(pooled(before, MEAN), seen[-1], atol=1e-5, rtol=1e-5)


def test_activations_that_overwrite_are_waited_for() -> None:
    """A map that the network changes in place later is heard as the next layer is given it."""
    net = network("efficientnet_lite0", "F(1-)", imagenet_state(), tuple(map(str, range(1000))))
    found, _ = heard(net, pictures(64))
    for number in (1, 18):
        assert found[number].map.min() == 0 and found[number].map.max() <= 6, "behind ReLU6"
    assert found[2].map.min() < 0, "a block ends with a projection"


@pytest.mark.parametrize("model", ["vit_b_32", "timm/vit_tiny_patch16_224"])
def test_tokens_are_a_map_and_a_class_token(model: str) -> None:
    """The class token is what the classifier sees; patches stand where they are in the picture."""
    if model.startswith("timm"):
        pytest.importorskip("timm")
    net = network(model)
    with torch.no_grad():
        for name, parameter in net.module.named_parameters():
            if "proj" not in name and "norm" not in name and "ln" not in name:
                parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(len(name)))
    images = pictures(224)
    found, logits = heard(net, images)
    last = found[len(net.layers) - 1]
    assert last.token is not None
    head = [part for part in net.module.modules() if isinstance(part, nn.Linear)][-1]
    if model == "vit_b_32":  # timm's last group leaves the final normalisation to its last block
        wanted = functional.linear(last.token.clone(), head.weight.detach(), head.bias.detach())
        torch.testing.assert_close(wanted, logits.clone())
    changed = images.clone()
    changed[:, :, :32, -32:] += 1  # the upper right corner
    stem = (heard(net, changed)[0][1].map - found[1].map).abs().sum(1)[0]
    assert stem[0, -1] > 0 and stem[-1, 0] == 0 == stem[0, 0]
    assert pooled(last, MEAN).shape[1] == 2 * last.map.shape[1]
    assert torch.equal(pooled(last, MAX)[:, : last.map.shape[1]], last.token)


@settings(max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 10), st.sampled_from(["mean", "max"]),
    st.booleans(),
)  # fmt: skip
def test_pooling_is_adaptive_pooling(
    height: int, width: int, grid: int, by: str, transposed: bool
) -> None:
    """Cells are those of adaptive pooling, by hand; finer grids than the map are the map."""
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    maps = maps.transpose(2, 3).contiguous().transpose(2, 3) if transposed else maps
    pooling = Pooling(grid=grid, by=by)  # type: ignore[arg-type]
    rows, columns = min(grid, height), min(grid, width)
    wanted = np.empty((2, 3, rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * height // rows, -(-(i + 1) * height // rows)
            left, right = j * width // columns, -(-(j + 1) * width // columns)
            cell = maps[:, :, top:bottom, left:right].numpy()
            wanted[:, :, i, j] = cell.mean((2, 3)) if by == "mean" else cell.max((2, 3))
    output = Output(maps)
    found = pooled(output, pooling).numpy()
    np.testing.assert_allclose(found, wanted.reshape(2, -1), atol=1e-6)
    np.testing.assert_array_equal(found, pooled(output, effective(output, pooling)).numpy())


def test_full_is_the_map_itself() -> None:
    """Pooling `full` keeps every number, channel by channel."""
    maps = torch.randn(2, 3, 4, 4)
    assert torch.equal(pooled(Output(maps), Pooling(grid="full")), maps.flatten(1))
    assert torch.equal(pooled(Output(maps), Pooling(grid=4, by="max")), maps.flatten(1))


@pytest.mark.parametrize(
    ("text", "number"),
    [("last", 8), ("last-1", 7), ("last - 3", 5), ("fc7", 7), ("3", 3), (3, 3), ("conv1", 1)],
)
def test_layers_by_number_and_name(text: str | int, number: int) -> None:
    """A layer is a number, a place from the end, or a name; resolved it is a number."""
    params = FeaturesParams(layer=text)  # type: ignore[arg-type]
    assert layer_number(params.layer, "alexnet") == number
    assert resolved(params, ModelParams(name="alexnet", weights="none")).layer == str(number)


def test_what_the_classifier_reads() -> None:
    """It has a number where weights cannot have grown."""
    params = FeaturesParams(layer="read")
    published = ModelParams(name="alexnet", weights="imagenet")
    assert resolved(params, published) == resolved(FeaturesParams(layer="fc7"), published)
    for weights in (WeightsRun(run="r1"), WeightsFile(file="/grown.safetensors")):
        found = resolved(params, ModelParams(name="alexnet", weights=weights))
        assert (found.layer, found.number) == ("read", 0)


@pytest.mark.parametrize("text", ["fc9", "0", "9", "last-8", "last+1", "", "-1", "1" * 9])
def test_layers_that_are_not_there(text: str) -> None:
    """Any other layer is refused with the names of those there are."""
    with pytest.raises(InputError, match=r"alexnet has no layer.*conv1-5 fc6-8"):
        layer_number(text, "alexnet")


def test_a_layer_that_gives_no_map_is_named() -> None:
    """Where a network hands several things from layer to layer, asking for them is an error."""
    net = network("mini8")
    taps = Taps(net, 28)
    taps._taps = tuple(tap for tap in taps._taps if tap.number != 3)
    taps.require(4)
    with pytest.raises(InputError, match=r"behind layer 3 \(conv3\)"):
        taps.require(3)
