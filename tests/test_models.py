"""Networks: their layers and initialisation, and what freezing guarantees."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ftd.errors import InputError, UnknownName
from jobs import layers, records
from jobs.layers import Treatment, model_names
from jobs.models import table, zoo
from jobs.models.build import skeleton
from jobs.models.construct import has_one_axis
from jobs.models.dropout import DropoutKeys, KeyedDropout, KeyedDropPath, random_bits
from jobs.models.exact import check_exact, make_exact
from jobs.models.network import Layer, Network, layer_index
from jobs.models.numbering import classifier_of
from jobs.models.pooling import AdaptiveAvgPool2d
from tests.networks import digest, imagenet_state, network, scratch_state

ONE_OF_EACH = [*(family.models[0] for family in zoo.FAMILIES), "alexnet", "vgg11_bn"]

# layers


@pytest.mark.parametrize("model", model_names())
def test_every_tensor_belongs_to_one_layer(model: str) -> None:
    """Parameters and buffers are partitioned into non-empty layers; the classifier is alone."""
    module, numbered = skeleton(model, num_classes=5)
    state = module.state_dict()
    big = [name for name, tensor in module.named_parameters() if not has_one_axis(tensor)]
    assert {state[name].device.type for name in big} == {"meta"}
    unsaved = {name for name, _ in module.named_buffers()} - set(state)
    owners = {name: layer_index(numbered, name) for name in (*state, *unsaved)}
    assert set(owners.values()) == set(range(len(numbered)))
    last = [name for name in state if owners[name] == len(numbered) - 1]
    assert {state[name].shape[0] for name in last} == {5}
    assert classifier_of(module, numbered, model)
    there = {*dict(module.named_modules()), *state}
    assert {path for layer in numbered for path in layer.modules} <= there


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_layers_come_in_the_order_of_computation(model: str) -> None:
    """A layer's first module runs after the modules of the layers before it."""
    module, numbered = skeleton(model, num_classes=2)
    module.to("meta")
    order: list[int] = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.LayerNorm | nn.BatchNorm2d):
            index = layer_index(numbered, name)
            part.register_forward_hook(lambda *_, index=index: order.append(index))
    with torch.device("meta"):
        size = records.record(model).crop
        module(torch.empty(2, 3, size, size))
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("model", "layer", "feeds"), [("alexnet", "fc6", 0), ("alexnet", "fc7", 3), ("vgg16", "fc8", 5)]
)
def test_dropout_belongs_to_the_layer_that_consumes_it(model: str, layer: str, feeds: int) -> None:
    """The dropout in front of a fully-connected layer is part of that layer."""
    module, numbered = skeleton(model, num_classes=2)
    path = f"classifier.{feeds}"
    assert isinstance(module.get_submodule(path), nn.Dropout)
    assert numbered[layer_index(numbered, path)].name == layer


def test_shipped_tables_are_up_to_date() -> None:
    """Regenerating the tables from the networks gives the shipped files, byte for byte."""
    assert table.text(table.layer_table()) == layers.TABLE.read_text()
    assert table.text(table.imagenet_table()) == records.TABLE.read_text()


def test_unknown_network_is_refused() -> None:
    """Building a network nobody knows names the closest one."""
    with pytest.raises(UnknownName, match="Did you mean 'alexnet'"):
        skeleton("alexnett", 2)


# the networks against other libraries


@pytest.mark.parametrize("size", [224, 97])
def test_efficientnet_lite0_equals_timm(size: int) -> None:
    """With the same tensors our outputs are timm's, at even and odd sizes."""
    timm = pytest.importorskip("timm")
    state = imagenet_state()
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    ours = network("efficientnet_lite0", "F(1-)", state, tuple(map(str, range(1000))))
    ours.eval()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=2e-5, rtol=1e-5)


def test_efficientnet_lite0_recognises_photographs() -> None:
    """With the packaged weights two photographs get their ImageNet classes."""
    datasets = pytest.importorskip("sklearn.datasets")
    from torchvision.models import AlexNet_Weights
    from torchvision.transforms.v2 import functional as pictures

    class_names = tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
    distinct = tuple(f"{index} {name}" for index, name in enumerate(class_names))
    net = network("efficientnet_lite0", "F(1-)", imagenet_state(), distinct)
    net.eval()
    expected = records.preprocessing("efficientnet_lite0")
    seen = []
    for photograph in datasets.load_sample_images().images:
        image = torch.tensor(photograph).permute(2, 0, 1)
        mode = pictures.InterpolationMode(expected.interpolation)
        image = pictures.center_crop(pictures.resize(image, [256], mode), [224]) / 255
        image = pictures.normalize(image, list(expected.mean), list(expected.std))
        with torch.no_grad():
            seen.append(class_names[int(net(image[None]).argmax())])
    assert seen == ["palace", "daisy"]  # china.jpg is the Summer Palace, flower.jpg a dahlia


@pytest.mark.parametrize("model", ["alexnet", "resnet18"])
def test_our_replacements_leave_torchvision_networks_as_they_are(model: str) -> None:
    """In eval mode a built network computes what torchvision's computes."""
    from torchvision import models

    theirs = models.get_model(model, num_classes=3).eval()
    state = scratch_state(model)
    theirs.load_state_dict(state)
    ours = network(model, "FT(1-)", state)
    ours.eval()
    images = torch.randn(2, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


SIZES = st.integers(1, 14)


@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 1000))
def test_adaptive_pooling_equals_torch(
    height: int, width: int, out_height: int, out_width: int, seed: int
) -> None:
    """Output and gradient are those of torch's adaptive average pooling, at any sizes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, height, width, generator=generator, requires_grad=True)
    upstream = torch.randn(2, 3, out_height, out_width, generator=generator)
    expected = functional.adaptive_avg_pool2d(images, (out_height, out_width))
    (expected_gradient,) = torch.autograd.grad(expected, images, upstream)
    pooled = AdaptiveAvgPool2d(out_height, out_width)(images)
    (gradient,) = torch.autograd.grad(pooled, images, upstream)
    torch.testing.assert_close(pooled, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-5)


def test_pooling_learns_after_it_was_evaluated() -> None:
    """What pooling keeps from evaluating without gradients does not stand in training's way."""
    pooling = AdaptiveAvgPool2d(3, 3)
    images = torch.ones(1, 1, 11, 11)  # a size that no other test pools
    with torch.inference_mode():
        pooling(images)
    weight = torch.ones(1, requires_grad=True)
    pooling(images * weight).sum().backward()
    assert weight.grad is not None and float(weight.grad) == pytest.approx(9)


@pytest.mark.parametrize("model", ["alexnet", "vgg11", "efficientnet_lite0"])
def test_nothing_random_by_position_or_inexact_is_left(model: str) -> None:
    """A built network holds no torch dropout and no adaptive pooling to more than one cell."""
    parts = list(network(model).module.modules())
    assert not [part for part in parts if isinstance(part, nn.Dropout | nn.AdaptiveAvgPool2d)]
    assert [part for part in parts if isinstance(part, KeyedDropout)]


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_nothing_draws_by_position_in_training(model: str) -> None:
    """A training pass at the smallest size draws no random numbers but by image."""
    module, numbered = skeleton(model, num_classes=5)
    known = records.record(model)
    make_exact(module, numbered, DropoutKeys(0))
    check_exact(model, module, 5, known.crop if known.only else max(known.least, 32))


@pytest.mark.parametrize("mode", ["dropout", "stochastic depth", "attention"])
def test_what_draws_by_position_is_named(mode: str) -> None:
    """Whatever cannot be keyed by image is refused, with the part of the network that draws."""
    from torchvision.ops import StochasticDepth

    class Attention(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(images, images, images, dropout_p=0.5)

    part = {
        "dropout": nn.Dropout2d(0.5),
        "stochastic depth": StochasticDepth(0.5, "batch"),
        "attention": Attention(),
    }[mode]
    module = nn.Sequential(
        OrderedDict(stem=nn.Conv2d(3, 3, 1), branch=part, flat=nn.Flatten(), fc=nn.Linear(12, 5))
    )
    layers = (Layer("stem", ("stem",)), Layer("classifier", ("branch", "flat", "fc")))
    make_exact(module, layers, DropoutKeys(0))
    with pytest.raises(UnknownName, match="draws random numbers in branch"):
        check_exact("some_network", module, 5, 2)


def test_stochastic_depth_drops_by_image() -> None:
    """In a whole network, the branches of an image are dropped whoever is beside it."""
    net = network("convnext_tiny")
    drops = [part for part in net.module.modules() if isinstance(part, KeyedDropPath)]
    for part in drops:
        part.rate = 0.5
    for name, parameter in net.module.named_parameters():
        if name.endswith("layer_scale"):  # or branches would hardly count at first
            nn.init.ones_(parameter)
    net.train()
    images, keys = torch.randn(3, 3, 32, 32), torch.tensor([11, 22, 33])
    with torch.no_grad():
        net.set_keys(5, keys)
        together = net(images)
        net.set_keys(5, keys[1:2])
        torch.testing.assert_close(net(images[1:2]), together[1:2], atol=1e-5, rtol=1e-4)
        net.set_keys(6, keys)
        assert not torch.allclose(net(images), together, atol=1e-4)
    assert len({part.layer for part in drops}) == len(drops) == 17  # the first block's rate is 0


# initial weights


def test_one_more_class_leaves_the_other_draws_as_they_are() -> None:
    """Rows of the classifier go by class name: neither number nor order of classes matters."""
    few = network("resnet18").state()
    many = network("resnet18", class_names=("ant", "newt", "dog", "cat")).state()
    for name, tensor in few.items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, many[name])
    assert torch.equal(few["fc.weight"], many["fc.weight"][[3, 2, 1]])
    assert not torch.equal(few["fc.weight"][0], many["fc.weight"][0])


def test_re_initialised_layers_do_not_depend_on_anything_else() -> None:
    """An R layer is drawn the same with or without weights and whatever the others do."""
    pretrained = scratch_state("resnet18")
    alone = network("resnet18", "F(1-8)R(9-10)", pretrained).state()
    torch.rand(100)  # the global generator is none of its business
    before = torch.get_rng_state()
    others = network("resnet18", "R(1-7,9-10)FT(8)", pretrained).state()
    assert torch.equal(before, torch.get_rng_state())
    scratch = network("resnet18").state()
    drawn = [name for name in alone if name.startswith(("layer4.1.", "fc."))]
    assert drawn
    for name in drawn:
        assert torch.equal(alone[name], others[name])
        assert torch.equal(alone[name], scratch[name])


def test_seed_changes_every_drawn_tensor() -> None:
    """Another init seed gives other weights in each layer."""
    one, two = network("resnet18", init_seed=1), network("resnet18", init_seed=2)
    for name, parameter in one.trainable().items():
        if parameter.dim() > 1:
            assert not torch.equal(parameter, two.trainable()[name])


def test_initial_weights_follow_their_rules() -> None:
    """Spread of each kind of layer: 2 / fan_out, 2 / fan_in, 0.01; biases and norms are plain."""
    state = network("alexnet", class_names=tuple(map(str, range(50)))).state()
    assert state["features.3.weight"].std().item() == pytest.approx((2 / (25 * 192)) ** 0.5, 0.02)
    assert state["classifier.1.weight"].std().item() == pytest.approx((2 / 9216) ** 0.5, 0.02)
    assert state["classifier.6.weight"].std().item() == pytest.approx(0.01, 0.02)
    assert not state["features.3.bias"].any()
    assert not state["classifier.6.bias"].any()
    lite = network("efficientnet_lite0").state()
    grouped = lite["blocks.15.depthwise_conv.weight"]
    assert grouped.std().item() == pytest.approx((2 / 9) ** 0.5, 0.05)
    assert (lite["bn0.weight"] == 1).all()
    assert (lite["bn0.running_var"] == 1).all()
    assert not lite["bn0.running_mean"].any()


@pytest.mark.parametrize("model", [*ONE_OF_EACH, "resnet50", "efficientnet_lite0"])
def test_initial_outputs_are_finite(model: str) -> None:
    """A network from scratch gives finite logits that differ between images."""
    net = network(model)
    net.load_state(net.state())
    net.eval()
    known = records.record(model)
    size = known.crop if known.only else max(known.least, 64)
    with torch.no_grad():
        logits = net(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


# treatments


def train_steps(net: Network, num_steps: int = 3) -> None:
    """Some real steps with momentum and weight decay, through a `train()` call each."""
    optimizer = torch.optim.SGD(net.module.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(num_steps):
        net.module.train()
        net.set_keys(step, torch.arange(4))
        images = torch.randn(4, 3, 64, 64, generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(images), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


@pytest.mark.parametrize("text", ["F(1-last-1)R(last)", "FT(1-2)F(3-5)R(6-)", "F(1-4)FT(5-)"])
@pytest.mark.parametrize("model", ["resnet18", "efficientnet_lite0"])
def test_frozen_layers_are_byte_identical_after_training(model: str, text: str) -> None:
    """Parameters and buffers of F layers do not move under weight decay; all others do."""
    net = network(model, text, scratch_state(model))
    before = digest(net.state())
    train_steps(net)
    after = digest(net.state())
    for name in before:
        frozen = net.treatment_of(name) == Treatment.F
        assert (before[name] == after[name]) == frozen, name
    assert set(net.trainable()) == {
        name for name, _ in net.module.named_parameters() if net.treatment_of(name) != "F"
    }


def test_treatments_say_where_the_weights_come_from() -> None:
    """F and FT layers start from the given tensors, R layers from fresh ones."""
    pretrained = scratch_state("resnet18")
    net = network("resnet18", "F(1-3)FT(4-8)R(9-10)", pretrained, init_seed=5)
    for name, tensor in net.state().items():
        kept = net.treatment_of(name) != Treatment.R
        assert torch.equal(tensor, pretrained[name]) == kept, name


def test_training_leaves_the_given_weights_alone() -> None:
    """A network has its own copy of its pretrained weights."""
    pretrained = scratch_state("resnet18")
    before = digest(pretrained)
    train_steps(network("resnet18", "FT(1-)", pretrained), num_steps=1)
    assert digest(pretrained) == before


def test_a_frozen_beginning_builds_no_graph() -> None:
    """The gradient's graph starts at the first trainable layer."""
    net = network("resnet18", "F(1-9)R(10)", scratch_state("resnet18"))
    net.train()
    features: list[torch.Tensor] = []
    net.module.get_submodule("layer4").register_forward_hook(
        lambda _module, _inputs, output: features.append(output)
    )
    logits = net(torch.randn(2, 3, 64, 64))
    assert logits.requires_grad
    assert not features[0].requires_grad


def test_frozen_dropout_drops_nothing() -> None:
    """In training mode the dropout of a frozen layer is off, that of a tuned one is on."""
    state = scratch_state("alexnet")
    images = torch.randn(2, 3, 64, 64)
    outputs = []
    for text in ("F(1-)", "F(1-7)FT(8)", "F(1-5)FT(6-8)"):
        net = network("alexnet", text, state)
        net.train()
        net.set_keys(0, torch.arange(2))
        outputs.append(net(images))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_frozen_layers_without_weights_are_refused() -> None:
    """F needs something to keep."""
    with pytest.raises(InputError, match="no pretrained weights"):
        network("resnet18", "F(1-9)R(10)")


def test_class_names_must_differ() -> None:
    """Two classes of one name would share their initial row."""
    with pytest.raises(InputError, match="class names must differ"):
        network("resnet18", class_names=("cat", "cat"))


# Numerics


# A processor takes its time for the large ones; what has no exact gradient is a GPU's matter.
SMALL = [
    *("alexnet", "vgg11_bn", "resnet18", "efficientnet_lite0"),
    *("squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "convnext_tiny", "swin_t"),
]
EXACT = [("cpu", model) for model in SMALL]
if torch.cuda.is_available():
    EXACT += [("cuda", model) for model in (*SMALL, *ONE_OF_EACH)]


@pytest.mark.parametrize(("device", "model"), EXACT)
def test_every_family_trains_exactly(
    model: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With deterministic algorithms demanded, a step runs and its repetition is bit-identical."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    known = records.record(model)
    size = known.crop if known.only else max(known.least, 64)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(2):
            net = network(model).to(device)
            net.train()
            net.set_keys(0, torch.arange(2))
            functional.cross_entropy(net(images), torch.tensor([0, 1]).to(device)).backward()
            gradients.append([parameter.grad for parameter in net.trainable().values()])
    finally:
        torch.use_deterministic_algorithms(False)
    for one, two in zip(*gradients, strict=True):
        assert one is not None and two is not None
        assert torch.equal(one, two)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_masks() -> None:
    """The mask of a sample is the same on a GPU as on the CPU."""
    keys = torch.arange(-50, 50)
    assert torch.equal(random_bits(99, keys, 333), random_bits(99, keys.cuda(), 333).cpu())
