"""Networks that differ in width or depth: their sizes, layers and smallest images."""

from __future__ import annotations

import pytest
import torch

from jobs import records
from jobs.layers import numbered
from jobs.models import alexnet, deep, mini8
from jobs.models.build import skeleton
from tests.networks import network

# Millions of parameters with 1,000 classes, from the published numbers of channels and units.
PUBLISHED = {
    "alexnet-tiny": 14.9,
    "alexnet-small": 30.3,
    "alexnet-medium": 62.4,
    "alexnet-large": 141.7,
    "deep8": 73.8,
    "deep11": 74.7,
    "deep13": 74.9,
}
SMALL = mini8.MODELS


def size(model: str, num_classes: int) -> int:
    """The number of a network's parameters."""
    return sum(part.numel() for part in skeleton(model, num_classes)[0].parameters())


@pytest.mark.parametrize("model", PUBLISHED)
def test_sizes_are_the_published_ones(model: str) -> None:
    """Counted from the papers' tables by hand, to a tenth of a million."""
    assert round(size(model, 1000) / 1e6, 1) == PUBLISHED[model]


def test_deep16_is_vgg16() -> None:
    """Tensors of the same shapes, in the same order."""
    ours, theirs = (skeleton(model, 7)[0].state_dict().values() for model in ("deep16", "vgg16"))
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in theirs]


def test_mini8_has_alexnets_layers() -> None:
    """Five and three, made of modules in the same places."""
    layers = skeleton("mini8", 3)[1]
    assert layers == alexnet.LAYERS


def test_width_multiplies_and_depth_does_not() -> None:
    """Twice the width is nearly four times the parameters; other depths have as many."""
    base = size("mini8", 10)
    assert size("mini8-w0.5", 10) < base / 3.5
    assert 3.5 < size("mini8-w2", 10) / base < 4 and 13 < size("mini8-w4", 10) / base < 16
    for model, depth in (("mini8-d4", 4), ("mini8-d6", 6), ("mini8", 8)):
        assert abs(size(model, 10) / base - 1) < 0.02
        assert len(numbered(model)) == depth


def test_fully_connected_layers_can_be_wider_alone() -> None:
    """mini8-fc1024 has mini8's convolutions, and 1024 units where that has 256."""
    narrow, wide = (
        {name: tuple(part.shape) for name, part in skeleton(model, 3)[0].named_parameters()}
        for model in ("mini8", "mini8-fc1024")
    )
    assert set(narrow) == set(wide)
    differ = {wide[name] for name in wide if narrow[name] != wide[name]}
    assert differ == {(1024, 288), (1024,), (1024, 1024), (3, 1024)}


@pytest.mark.parametrize("model", [*deep.MODELS])
def test_depth_is_in_the_name(model: str) -> None:
    """deep11 has eleven layers, the last three fully connected."""
    names = numbered(model)
    assert len(names) == int(model.removeprefix("deep"))
    assert [name[:2] for name in names[-4:]] == ["co", "fc", "fc", "fc"]


@pytest.mark.parametrize("model", [*SMALL, *alexnet.SHAPES, *deep.MODELS])
def test_the_smallest_image_leaves_a_picture(model: str) -> None:
    """An image of the recorded least size passes, on the way to logits for each class."""
    least = records.record(model).least
    with torch.device("meta"):
        module = skeleton(model, 5)[0].to("meta")
        assert module(torch.empty(2, 3, least, least)).shape == (2, 5)


@pytest.mark.parametrize("model", SMALL)
def test_small_ones_compute(model: str) -> None:
    """Different images give different logits, and every parameter gets a gradient."""
    net = network(model)
    net.eval()
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    logits = net(images)
    assert logits.shape == (2, 3) and not torch.equal(logits[0], logits[1])
    logits.square().sum().backward()
    assert all(part.grad is not None and part.grad.any() for part in net.trainable().values())
