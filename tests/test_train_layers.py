"""Layers trained each in its own way: learning rates, unfreezing, BatchNorm and dropout."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ftd.errors import InputError
from ftd.store import Store
from jobs.data.batches import Batch, Loader
from jobs.data.digits import digits_listing
from jobs.data.images import decoded
from jobs.layer_rates import layer_factors
from jobs.layers import Treatment, numbered, treatments
from jobs.models.dropout import KeyedDropout
from jobs.models.network import Network
from jobs.models.treatment import hold
from jobs.params.layerwise import UnfreezeParams
from jobs.params.train import TrainParams
from jobs.records import Preprocessing
from jobs.train.loss import Objective
from jobs.train.optimizer import build_optimizer
from jobs.train.policies import apply_policies, frozen_norms
from jobs.train.reestimate import reestimate
from jobs.train.state import TrainingState
from jobs.train.step import Stepper
from jobs.train.unfreeze import waiting
from tests.networks import digest, network, scratch_state

ALEXNET = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def params(**fields: object) -> TrainParams:
    return TrainParams.model_validate({"epochs": 1, "lr": 0.05, "schedule": "constant", **fields})


def batch(size: int = 6, seed: int = 3, pixels: int = 32) -> Batch:
    """Noise with labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, pixels, pixels, generator=generator)
    return Batch(images, torch.arange(size) % 3, torch.arange(size) + 100 * seed)


def trained(net: Network, train: TrainParams, num_steps: int = 2, pixels: int = 32) -> Network:
    """`net` after a few steps on noise, two per epoch, evaluation mode in between."""
    apply_policies(net, train)
    state = TrainingState.initial(net, train, "cpu")
    stepper = Stepper(train, Objective(3), num_steps, 2, "cpu")
    for step in range(num_steps):
        stepper.take(state, batch(seed=step, pixels=pixels))
        net.eval()
    return net


def pretrained(layers: str, model: str = "resnet18") -> Network:
    return network(model, layers, scratch_state(model))


def changed(before: Mapping[str, bytes], net: Network) -> set[int]:
    """The numbers of the layers of which a tensor changed."""
    after = digest(net.state())
    return {net.layer_of(name) + 1 for name in before if before[name] != after[name]}


# --- learning rates ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "wanted"),
    [
        ({"1-3": 0.1}, [0.1, 0.1, 0.1, 1, 1, 1, 1, 1]),
        ({"conv5-fc7": 2}, [1, 1, 1, 1, 2, 2, 2, 1]),
        ({"conv1": 3, "last": 4}, [3, 1, 1, 1, 1, 1, 1, 4]),
        ({"last-2": 3}, [1, 1, 1, 1, 1, 3, 1, 1]),
        ({"conv3-last-2": 3}, [1, 1, 3, 3, 3, 3, 1, 1]),
        ({" last-2 - last ": 3, "1": 2}, [2, 1, 1, 1, 1, 3, 3, 3]),
        ({}, [1] * 8),
    ],
)
def test_layers_are_named_by_number_name_or_range(
    factors: dict[str, float], wanted: list[float]
) -> None:
    """A factor reaches exactly the layers that its key means."""
    assert layer_factors(factors, None, ALEXNET) == tuple(wanted)


def test_names_may_look_like_ranges() -> None:
    """A layer's own name wins over a range."""
    names = ("a-b", "b", "stage.1-2", "a")
    assert layer_factors({"a-b": 2, "stage.1-2-a": 3}, None, names) == (2, 1, 3, 3)


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({"conv9": 1}, "'conv9' means no layer.*conv1 to fc8"),
        ({"3-1": 1}, "'3-1' means no layer"),
        ({"0-2": 1}, "'0-2' means no layer"),
        ({"9": 1}, "'9' means no layer"),
        ({"1-3": 1, "conv2": 2}, "'1-3' and 'conv2' both mean layer 2, conv2"),
    ],
)
def test_wrong_layers_are_refused(factors: dict[str, float], says: str) -> None:
    """A key that means nothing, or a layer meant twice, is named."""
    with pytest.raises(InputError, match=says):
        layer_factors(factors, None, ALEXNET)


@given(st.integers(1, 30), st.floats(0.1, 1))
def test_layer_decay_is_a_power_of_the_distance_from_the_top(num: int, decay: float) -> None:
    """The last layer learns at the full rate, each before it at `decay` times the next one's."""
    found = layer_factors({}, decay, [f"l{n}" for n in range(num)])
    assert found[-1] == 1
    assert all(low == pytest.approx(decay * high) for low, high in itertools.pairwise(found))


def test_groups_learn_at_their_layers_rates() -> None:
    """Factors, decay and the factor of new layers multiply, each parameter's group has the rate."""
    train = params(lr=0.1, head_lr_factor=5, layer_decay=0.5, lr_factors={"8": 0.1, "last": 2})
    net = pretrained("F(1-2)FT(3-9)R(10)")
    rates = {
        id(parameter): group["lr"]
        for group in build_optimizer(net, train).param_groups
        for parameter in group["params"]
    }
    found = {net.layer_of(name) + 1: rates[id(own)] for name, own in net.trainable().items()}
    assert found[10] == pytest.approx(0.1 * 5 * 2)
    assert found[9] == pytest.approx(0.1 * 0.5)
    assert found[8] == pytest.approx(0.1 * 0.25 * 0.1)
    assert found[3] == pytest.approx(0.1 * 0.5**7)
    assert set(found) == set(range(3, 11))


# --- gradual unfreezing -----------------------------------------------------------------------


@pytest.mark.parametrize("unit", [{"every_steps": 3}, {"every_epochs": 1}])
def test_layers_join_from_the_top(unit: dict[str, int]) -> None:
    """One more layer joins every n steps or epochs; the classifier and new layers never wait."""
    wanted = UnfreezeParams.model_validate(unit)
    chosen = treatments("F(1)FT(2-4)R(5)FT(6-8)", 8)
    found = [sorted(n + 1 for n in waiting(wanted, chosen, step, 3)) for step in range(0, 21, 3)]
    assert found == [[2, 3, 4, 6, 7], [2, 3, 4, 6], [2, 3, 4], [2, 3], [2], [], []]
    assert waiting(wanted, chosen, 2, 3) == waiting(wanted, chosen, 0, 3)


def test_waiting_layers_are_frozen_and_then_learn() -> None:
    """Until its turn comes a layer stays byte-identical, buffers too; afterwards it changes."""
    for num_steps, learning in [(2, {10}), (3, {9, 10}), (6, {8, 9, 10}), (30, set(range(2, 11)))]:
        net = pretrained("F(1)FT(2-10)")
        before = digest(net.state())
        trained(net, params(unfreeze={"every_steps": 2 if num_steps < 30 else 3}), num_steps)
        assert changed(before, net) == learning, num_steps


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_waiting_layer_is_a_frozen_one(optimizer: str) -> None:
    """The steps while a layer waits, and the one when another joins, are as if it were frozen."""
    train = params(unfreeze={"every_steps": 1}, optimizer=optimizer, lr=0.01)
    waited = trained(pretrained("F(1-7)FT(8-10)"), train, 2)
    frozen = trained(pretrained("F(1-8)FT(9-10)"), train, 2)
    assert digest(waited.state()) == digest(frozen.state())


def test_holding_and_releasing_leaves_modes_as_they_were() -> None:
    """Held layers are in eval mode whatever is called; released ones follow the network again."""
    net = pretrained("F(1)FT(2-9)R(10)")
    apply_policies(net, params(batchnorm={"tuned": "stored"}))
    modes = {name: part.training for name, part in net.module.named_modules()}
    hold(net, {3, 4})
    net.eval()
    net.train()
    held = [part for name, part in net.module.named_modules() if net.layers[3].holds(name)]
    assert held and not any(part.training for part in held)
    hold(net, {4})
    assert net.layers[3].modules[0] in modes
    hold(net, set())
    assert {name: part.training for name, part in net.module.named_modules()} == modes
    assert all(own.requires_grad for own in net.trainable().values())


# --- BatchNorm --------------------------------------------------------------------------------

NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")


def test_stored_statistics_of_tuned_layers_stay() -> None:
    """With tuned: stored, layers FT learn, but normalise by the source's statistics and keep them;
    new layers go by the batch."""
    for tuned, stay in [("stored", True), ("train", False)]:
        net = pretrained("F(1-4)FT(5-8)R(9-10)")
        before = digest(net.state())
        trained(net, params(batchnorm={"tuned": tuned}))
        after = digest(net.state())
        for name in before:
            number = net.layer_of(name) + 1
            is_statistic = name.endswith(NOT_TRAINED)
            stays = number < 5 or (number < 9 and is_statistic and stay)
            assert (before[name] == after[name]) == stays, name


def test_groups_are_micro_batches() -> None:
    """Statistics of groups of n give the running statistics and the gradients of batches of n."""
    grouped = trained(network("resnet18"), params(batchnorm={"group_size": 2}), 1)
    parts = trained(network("resnet18"), params(micro_batch_size=2), 1)
    whole = trained(network("resnet18"), params(), 1)
    for name, tensor in grouped.state().items():
        torch.testing.assert_close(tensor, parts.state()[name], rtol=1e-3, atol=1e-4)
    assert grouped.state()["bn1.num_batches_tracked"] == 3
    assert not torch.equal(grouped.state()["bn1.running_var"], whole.state()["bn1.running_var"])


@given(st.integers(1, 12), st.integers(1, 14))
def test_groups_are_cut_evenly(num_images: int, group_size: int) -> None:
    """A BatchNorm in groups is one BatchNorm after another on the fewest even groups."""
    from types import SimpleNamespace

    part = nn.BatchNorm2d(4)
    with torch.no_grad():
        part.weight.copy_(torch.arange(4) + 1.0)
    module = nn.Sequential(part)
    fake = SimpleNamespace(module=module, treatment_of=lambda _: Treatment.R, free_dropouts=[])
    apply_policies(fake, params(batchnorm={"group_size": group_size}))  # type: ignore[arg-type]
    values = torch.randn(num_images, 4, 3, 3)
    groups = values.tensor_split(-(-num_images // group_size))
    assert all(len(group) <= group_size for group in groups)
    wanted = [
        functional.batch_norm(group, None, None, part.weight, part.bias, training=True)
        for group in groups
    ]
    torch.testing.assert_close(module(values), torch.cat(wanted))
    assert part.num_batches_tracked == len(groups)
    part.eval()
    torch.testing.assert_close(module(values), functional.batch_norm(
        values, part.running_mean, part.running_var, part.weight, part.bias
    ))  # fmt: skip


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """The digits at 32 pixels."""
    store = Store(Path(tmp_path_factory.mktemp("store")))
    images = decoded(
        digits_listing(), "d", 32, "bilinear", store=store, threads=1, progress=lambda *_: None
    )
    return Loader(images, 32, Preprocessing((0.5,) * 3, (0.5,) * 3, "bilinear"), "cpu")


CHOSEN = np.arange(20, dtype=np.int64)


def test_reestimated_statistics_are_those_of_the_training_images(loader: Loader) -> None:
    """With one batch they are torch's own statistics of it; parameters are untouched."""
    net, reference = pretrained("F(1-9)R(10)"), pretrained("FT(1-9)R(10)")
    before = digest(net.state())
    reestimate(net, loader, CHOSEN, 64, pause=lambda: None)
    assert len(frozen_norms(net)) == 20
    for part in reference.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0  # the last batch's statistics replace the running ones
    reference.module.train()
    with torch.no_grad():
        reference(next(loader.evaluation(CHOSEN, 64)).images)
    after = net.state()
    for name, tensor in reference.state().items():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-5)
            assert before[name] != after[name].numpy().tobytes()
        else:
            assert before[name] == after[name].numpy().tobytes(), name


def test_reestimation_counts_all_images_alike(loader: Loader) -> None:
    """In several batches the first BatchNorm, whose input does not depend on them, is the same."""
    found = []
    for batch_size in (64, 7, 3):
        net = pretrained("F(1-9)R(10)")
        places: list[None] = []
        reestimate(net, loader, CHOSEN, batch_size, pause=lambda places=places: places.append(None))
        assert len(places) == -(-20 // batch_size)
        found.append(net.state()["bn1.running_var"])
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_frozen_layers_stay_after_reestimation(loader: Loader) -> None:
    """Training afterwards changes neither parameters nor buffers of frozen layers."""
    net = pretrained("F(1-5)FT(6-9)R(10)")
    train = params(batchnorm={"frozen": "reestimate"})
    apply_policies(net, train)
    reestimate(net, loader, CHOSEN, 8, pause=lambda: None)
    before = digest(net.state())
    trained(net, train)
    assert changed(before, net) == {6, 7, 8, 9, 10}


@pytest.mark.parametrize("model", ["alexnet", "resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"batchnorm": {"tuned": "stored"}},
        {"batchnorm": {"group_size": 2}},
        {"frozen_dropout": "on"},
        {"unfreeze": {"every_steps": 1}},
        {"ema_decay": 0.5, "l2_sp": {"alpha": 0.1, "beta": 0.1}, "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "precision": "bfloat16", "clip_norm": 1.0,
         "micro_batch_size": 2, "channels_last": "on"},
    ],
    ids=str,
)  # fmt: skip
def test_frozen_layers_are_byte_identical_under_every_policy(
    model: str, policy: dict[str, object]
) -> None:
    """Whatever else is asked for, parameters and buffers of layers F stay as they were."""
    last = len(numbered(model))
    net = pretrained(f"F(1-{last - 3})FT({last - 2}-{last - 1})R({last})", model)
    before = digest(net.state())
    trained(net, params(**policy), 3, pixels=64)
    assert changed(before, net) == {last - 2, last - 1, last}


# --- dropout ----------------------------------------------------------------------------------


def test_dropout_of_frozen_layers() -> None:
    """On: frozen layers drop in training, also after an evaluation; off, or in evaluation: not."""
    for wanted, drops in [("on", True), ("off", False)]:
        net = pretrained("F(1-7)R(8)", "alexnet")
        apply_policies(net, params(frozen_dropout=wanted))
        parts = [part for part in net.module.modules() if isinstance(part, KeyedDropout)]
        assert len(parts) == 2
        assert [part.training for part in parts] == [drops] * 2
        net.eval()
        assert not any(part.training for part in parts)
        net.train()
        assert [part.training for part in parts] == [drops] * 2
        before = digest(net.state())
        net.set_keys(0, torch.arange(4))
        images = torch.ones(4, 3, 64, 64)
        outputs = net(images)
        assert (outputs[0] != outputs[1]).any().item() == drops
        assert digest(net.state()) == before


def test_frozen_dropout_changes_what_is_learned() -> None:
    """The same steps with and without it give other classifiers."""
    found = [
        trained(pretrained("F(1-7)R(8)", "alexnet"), params(frozen_dropout=wanted), 1, pixels=64)
        for wanted in ("on", "off")
    ]
    assert not torch.equal(*(net.state()["classifier.6.weight"] for net in found))
