"""Growing networks: equations, sizes, what stays as it was, and building a grown network again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from ftd.errors import InputError, WeightsError
from jobs.data.batches import Batch
from jobs.features.taps import Taps
from jobs.grow import num_fully_connected
from jobs.growth.fill import copied_units
from jobs.growth.gradmax import aim, directions
from jobs.growth.growing import num_parameters_of
from jobs.growth.parts import Scale, normalised
from jobs.growth.place import classifier_path, dims_of, place_in
from jobs.growth.structure import num_parameters, structure_of, structures_in
from jobs.layers import Treatment
from jobs.models.build import skeleton
from jobs.models.network import Network
from jobs.models.numbering import classifier_of
from jobs.params.growth import GrowthParams
from jobs.train.loss import Objective
from tests.growing import SIZES, grow_again, grown, images, params, random_state
from tests.networks import NAMES, digest, network

TYPES: dict[str, dict[str, Any]] = {
    "da": {"units": 20}, "wa": {"units": 12}, "dwa": {"units": 12, "units_on_top": 10},
    "wwa": {"units": 12, "units_below": 5}, "scale_only": {}, "bottleneck": {"units": 6},
    "zero_outgoing": {"units": 12}, "gradmax": {"units": 12}, "net2wider": {"units": 300},
    "net2deeper": {}, "lora": {"units": 4},
}  # fmt: skip
ANYWHERE = ("da", "wa", "dwa", "scale_only", "bottleneck", "zero_outgoing", "gradmax")
PRESERVING = ("zero_outgoing", "gradmax", "net2wider", "net2deeper", "lora")
POOLED = ("efficientnet_lite0", "resnet18", "convnext_tiny", "vit_b_32", "swin_t")


def inputs_of(net: Network, x: torch.Tensor, *paths: str) -> list[torch.Tensor]:
    """What modules are given when `net` sees `x`, before any growth changes it."""
    seen: dict[str, torch.Tensor] = {}

    def listen(path: str) -> Any:
        def before(_part: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            seen[path] = given[0]

        return net.module.get_submodule(path).register_forward_pre_hook(before, prepend=True)

    handles = [listen(path) for path in paths]
    net.eval()
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return [seen[path] for path in paths]


def place_of(net: Network) -> Any:
    """Where a network grows."""
    return place_in(net.module, net.layers, net.model, classifier_path(net))


# --- the paper's equations --------------------------------------------------------------------


def relu(state: dict[str, torch.Tensor], part: str, x: torch.Tensor) -> torch.Tensor:
    """f(W x + b) of a part."""
    return (x @ state[f"{part}.weight"].T + state[f"{part}.bias"]).clamp(min=0)


def paced(x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Equations 1 and 2 of one block."""
    return gamma * x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("scale", ["on", "off"])
@pytest.mark.parametrize("kind", ["da", "wa", "dwa", "wwa"])
def test_the_papers_networks_are_computed_as_its_equations_say(kind: str, scale: str) -> None:
    """New fc7 units see old and new fc6 units, old ones only old; blocks have their own pace."""
    net = grown(type=kind, scale=scale, gamma=7.0, **TYPES[kind])
    place = place_of(net)
    x = images("mini8")
    x6, x7, old = inputs_of(net, x, place.below, place.last, place.classifier)
    state, on = net.state(), scale == "on"
    joined = old
    if kind != "da":
        seen = x7
        if kind == "wwa":
            below = relu(state, "grown.1.below", x6)
            gamma = state["grown.1.scale_below.gamma"] if on else torch.empty(0)
            parts = [paced(x7, gamma[:256]), paced(below, gamma[256:])] if on else [x7, below]
            seen = torch.cat(parts, 1)
        new = relu(state, "grown.1.beside", seen)
        gamma = state["grown.1.scale.gamma"] if on else torch.empty(0)
        joined = torch.cat(
            [paced(old, gamma[:256]), paced(new, gamma[256:])] if on else [old, new], 1
        )
    if kind in ("da", "dwa"):
        joined = relu(state, "grown.1.top", joined)
    if kind == "da" and on:
        joined = paced(joined, state["grown.1.scale.gamma"])
    columns = [state[f"{place.classifier}.weight"]]
    columns += [t for name, t in state.items() if name.startswith(f"{place.classifier}.more")]
    expected = joined @ torch.cat(columns, 1).T + state[f"{place.classifier}.bias"]
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


def test_every_scale_starts_at_gamma() -> None:
    """The factors start from what is asked for, in all scaled places."""
    state = grown(type="wwa", units=8, gamma=20.0).state()
    gammas = [tensor for name, tensor in state.items() if name.endswith("gamma")]
    assert [len(gamma) for gamma in gammas] == [256 + 4, 256 + 8]
    assert all(bool((gamma == 20).all()) for gamma in gammas)


@settings(max_examples=30)
@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.integers(0, 2**31))
def test_a_blocks_norm_does_not_depend_on_the_other(one: float, two: float, seed: int) -> None:
    """However large either block is, each comes out with the norm of its gammas."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [torch.randn(3, width, generator=generator, dtype=torch.float64) for width in (5, 9)]
    scale = Scale((5, 9)).double()
    with torch.no_grad():
        first = scale(blocks[1], *blocks)
        second = scale(blocks[1], blocks[0] * one, blocks[1] * two)
    torch.testing.assert_close(first, second)
    for part in first.split((5, 9), 1):
        torch.testing.assert_close(part.norm(dim=1), torch.full((3,), 10.0).double())


def test_a_block_of_zeros_stays_zero() -> None:
    """Units that are all silent give zeros and finite gradients, not NaN."""
    block = torch.zeros(2, 4, requires_grad=True)
    result = normalised(block)
    result.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(result, torch.zeros(2, 4))
    assert block.grad is not None and bool(block.grad.isfinite().all())


@pytest.mark.parametrize("model", POOLED)
def test_units_beside_a_pooled_layer_read_what_it_reads(model: str) -> None:
    """Each new unit is the mean over all places of a ReLU of that place's features."""
    net = grown(model, type="wa", units=6, scale="off")
    place, x = place_of(net), images(model, 2)
    read, old = inputs_of(net, x, place.last, place.classifier)
    if read.dim() == 4 and model != "swin_t":
        read = read.permute(0, 2, 3, 1)
    state = net.state()
    new = relu(state, "grown.1.beside", read.flatten(1, -2)).mean(1)
    columns = [state[f"{place.classifier}.weight"], state[f"{place.classifier}.more.1"]]
    expected = torch.cat([old, new], 1) @ torch.cat(columns, 1).T
    with torch.no_grad():
        logits = net(x) - state[f"{place.classifier}.bias"]
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


# --- what stays as it was -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_growing_leaves_every_old_draw_as_it_is(kind: str) -> None:
    """Old tensors are byte-identical, the head's rows included, where they have the same shape."""
    plain = network("mini8", "R(1-)").state()
    big = grow_again(network("mini8", "R(1-)"), type=kind, **TYPES[kind]).state()
    before, after = digest(plain), digest(big)
    changed = {name for name in before if after[name] != before[name]}
    new_head = {"classifier.6.weight"} if kind in ("da", "dwa", "net2wider") else set()
    assert changed == new_head
    assert set(after) - set(before) == {
        name for name in after if name.startswith("grown.") or ".more." in name
    }


def test_other_growths_leave_common_draws_as_they_are() -> None:
    """A new part is drawn by its name: what else is grown does not change it."""
    wa = grown(type="wa", units=12).state()
    dwa = grown(type="dwa", units=12).state()
    assert torch.equal(wa["grown.1.beside.weight"], dwa["grown.1.beside.weight"])
    other = grown(type="wa", units=12, seed=2).state()
    assert not torch.equal(wa["grown.1.beside.weight"], other["grown.1.beside.weight"])
    rows = grown(type="wa", units=12).state()["classifier.6.more.1"]
    assert rows.shape == (len(NAMES), 12) and rows.std() < 0.02


def test_new_columns_follow_their_classes() -> None:
    """One more class leaves the new columns of the others as they are drawn."""
    few = grow_again(network("mini8", class_names=("cat", "newt")), type="wa", units=5)
    more = grow_again(network("mini8", class_names=NAMES), type="wa", units=5)
    columns = [net.state()["classifier.6.more.1"] for net in (few, more)]
    assert torch.equal(columns[0], columns[1][[0, 2]])


@settings(max_examples=12)
@given(st.sampled_from(PRESERVING), st.integers(1, 300), st.integers(0, 2**31))
def test_what_promises_to_change_nothing_changes_nothing(kind: str, units: int, seed: int) -> None:
    """In float64 and without noise the logits agree within 1e-5 of their size."""
    sizes = {} if kind == "net2deeper" else {"units": units}
    plain = network("mini8", pretrained=random_state("mini8"))
    plain.module.double()
    big = network("mini8", pretrained=random_state("mini8"), init_seed=seed)
    big.module.double()
    big = grow_again(big, seed=seed, type=kind, noise=0.0, **sizes)
    x = images("mini8").double()
    plain.eval()
    big.eval()
    with torch.no_grad():
        before, after = plain(x), big(x)
    assert float((before - after).abs().max()) <= 1e-5 * float(before.abs().max())


def test_noise_breaks_the_symmetry_of_copies() -> None:
    """Without noise copies are alike; with it they differ, by its size and no more."""
    alike = grown(type="net2wider", units=256, noise=0.0).state()["grown.1.beside.weight"]
    noisy = grown(type="net2wider", units=256, noise=0.5).state()["grown.1.beside.weight"]
    old = random_state("mini8")["classifier.4.weight"]
    assert torch.equal(alike.sort(0).values, old.sort(0).values)
    spread = (noisy - alike).std() / old.std()
    assert 0.45 < float(spread) < 0.55


# --- what new parts start from ------------------------------------------------------------------


def test_copies_are_of_other_units_as_long_as_there_are_any() -> None:
    """Each old unit is copied once before any is copied twice, in an order of the seed."""
    first = copied_units(10, 25, "fc7", 1)
    assert sorted(first[:10].tolist()) == sorted(first[10:20].tolist()) == [*range(10)]
    assert first.tolist() != copied_units(10, 25, "fc7", 2).tolist()
    assert copied_units(10, 4, "fc7", 1).tolist() == first[:4].tolist()


@pytest.mark.parametrize("kind", ["wa", "dwa", "wwa"])
def test_copied_units_start_from_old_ones(kind: str) -> None:
    """copy_rand: incoming weights and biases of old units; new inputs keep their random weights."""
    sizes = {"units": 6}
    rand = grown(type=kind, **sizes).state()
    copied = grown(type=kind, init="copy_rand", noise=0.0, **sizes).state()
    old = random_state("mini8")
    rows = copied_units(256, 6, "classifier.4", 1)
    weight = copied["grown.1.beside.weight"]
    assert torch.equal(weight[:, :256], old["classifier.4.weight"][rows])
    assert torch.equal(weight[:, 256:], rand["grown.1.beside.weight"][:, 256:])
    assert torch.equal(copied["grown.1.beside.bias"], old["classifier.4.bias"][rows])
    if kind == "wwa":
        below = copied_units(256, 3, "classifier.1", 1)
        assert torch.equal(copied["grown.1.below.weight"], old["classifier.1.weight"][below])


def test_gradmax_makes_the_new_gradient_greatest() -> None:
    """No other directions of the same length give new units a larger gradient; nothing changes."""
    net = grown(type="gradmax", units=2)
    place, x = place_of(net), images("mini8", 12)
    labels = torch.arange(12) % 3
    batch = Batch(x, labels, torch.arange(12), None)
    net.eval()
    before = net(x).detach()
    aim(net, place, 1, batch, Objective(3), seed=1)
    columns = net.module.get_parameter("classifier.6.more.1")
    old = net.module.get_parameter("classifier.6.weight").detach()
    length = float(old.norm(dim=0).mean())
    torch.testing.assert_close(columns.norm(dim=0), torch.full((2,), length))

    def gradient_norm() -> float:
        net.module.zero_grad()
        functional.cross_entropy(net(x), labels).backward()  # type: ignore[no-untyped-call]
        grad = net.module.get_parameter("grown.1.beside.weight").grad
        assert grad is not None
        return float(grad.norm())

    best = gradient_norm()
    torch.testing.assert_close(net(x).detach(), before, rtol=1e-4, atol=1e-6)
    for seed in range(5):
        drawn = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            columns.copy_(torch.linalg.qr(drawn)[0] * length)
        assert gradient_norm() < best


def test_directions_are_singular_vectors_then_mixtures() -> None:
    """The first are numpy's left singular vectors up to their sign; all have length 1."""
    gradient = torch.randn(3, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = directions(gradient, 7, seed=1)
    left = np.linalg.svd(gradient.numpy(), full_matrices=False)[0]
    np.testing.assert_allclose(np.abs(found[:, :3].numpy()), np.abs(left), atol=1e-9)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(7, dtype=torch.float64))
    assert torch.equal(directions(gradient, 2, seed=1), found[:, :2])
    assert not torch.equal(directions(gradient, 7, seed=2)[:, 3:], found[:, 3:])
    assert bool(directions(torch.zeros(3, 4, dtype=torch.float64), 5, seed=1).isfinite().all())


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["on", "off"])
@pytest.mark.parametrize("kind", TYPES)
def test_parameters_are_counted_as_they_are(kind: str, scale: str) -> None:
    """The formula agrees with the network that is built, and its tensors tell the structure."""
    growth = {"type": kind, **TYPES[kind]}
    if kind in ("da", "wa", "dwa", "wwa", "bottleneck"):
        growth["scale"] = scale
    plain = network("mini8")
    dims = dims_of(plain, place_of(plain), 28)
    structure = structure_of(GrowthParams(**growth), dims)
    before = num_parameters_of(plain)
    big = grow_again(plain, **growth)
    assert num_parameters_of(big) - before == num_parameters(structure, dims)
    assert structures_in({n: t.shape for n, t in big.state().items()}) == (structure,)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if "units" in TYPES[kind]])
def test_arms_can_have_equal_numbers_of_parameters(kind: str) -> None:
    """`parameters` sizes each type so that one unit more or less would not come nearer."""
    plain = network("mini8")
    dims = dims_of(plain, place_of(plain), 28)
    wanted = 33_000
    found = structure_of(GrowthParams(type=kind, parameters=wanted), dims)
    units = found.beside or found.hidden or found.rank or found.top
    error = abs(num_parameters(found, dims) - wanted)
    for near in (units - 1, units + 1):
        other = structure_of(GrowthParams(type=kind, units=near), dims)
        assert abs(num_parameters(other, dims) - wanted) >= error
    assert error < 400


# --- layers, treatments, later runs -------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("model", ["mini8", "efficientnet_lite0"])
def test_every_tensor_of_a_grown_network_belongs_to_one_layer(model: str, kind: str) -> None:
    """New parts are layers of their own behind the old ones, which keep their numbers."""
    if model != "mini8" and kind not in ANYWHERE:
        with pytest.raises(InputError, match="fully-connected"):
            grown(model, type=kind, **TYPES[kind])
        return
    plain = network(model)
    names = [layer.name for layer in plain.layers]
    big = grown(model, type=kind, **TYPES[kind])
    found = [layer.name for layer in big.layers]
    assert found[: len(names) - 1] == names[:-1] and found[-1] == names[-1]
    assert len(found) > len(names) and len(set(found)) == len(found)
    assert all(big.layer_of(name) >= 0 for name in big.state())
    new = {chosen for layer, chosen in zip(big.layers, big.treatments, strict=True) if layer.host}
    assert new == {Treatment.R}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("wwa", ["fc6+", "scale_below", "fc7+", "scale"]),
        ("da", ["fc_a", "scale"]),
        ("dwa", ["fc7+", "scale", "fc_a"]),
        ("lora", ["lora"]),
    ],
)
def test_new_layers_come_in_the_order_of_computation(kind: str, names: list[str]) -> None:
    """They are called as in the paper."""
    big = grown(type=kind, **TYPES[kind])
    assert [layer.name for layer in big.layers[7:-1]] == names


@pytest.mark.parametrize("kind", TYPES)
def test_a_grown_network_is_built_again_from_its_weights(kind: str) -> None:
    """Its tensors say how it was grown: built from them alone, it says the same."""
    big = grown(type=kind, **TYPES[kind])
    state = {name: tensor.clone() for name, tensor in big.state().items()}
    again = network("mini8", pretrained=state, init_seed=33)
    assert digest(again.state()) == digest(state)
    assert [layer.name for layer in again.layers] == [layer.name for layer in big.layers]
    x = images("mini8")
    big.eval()
    again.eval()
    with torch.no_grad():
        assert torch.equal(big(x), again(x))


def test_grown_parts_share_the_treatment_of_the_layer_beside_them() -> None:
    """Later on fc6+ is treated as fc6 is, what reads fc7 as fc7 is; R draws it anew."""
    state = grown(type="wwa", units=8).state()
    frozen = network("mini8", "F(1-6)FT(7)R(8)", state)
    names = [layer.name for layer in frozen.layers]
    chosen = dict(zip(names, frozen.treatments, strict=True))
    assert chosen["fc6+"] == chosen["scale_below"] == "F"
    assert chosen["fc7+"] == chosen["scale"] == "FT"
    assert "grown.1.below.weight" not in frozen.trainable()
    drawn = network("mini8", "FT(1-5)R(6-8)", state, init_seed=2).state()
    assert not torch.equal(drawn["grown.1.beside.weight"], state["grown.1.beside.weight"])
    assert torch.equal(drawn["grown.1.scale.gamma"], torch.full((264,), 10.0))


@pytest.mark.parametrize("first", ["wa", "da", "dwa", "wwa", "bottleneck", "lora"])
@pytest.mark.parametrize("second", ["wa", "da", "wwa", "scale_only", "bottleneck"])
def test_a_network_grows_again_and_again(first: str, second: str) -> None:
    """Growths follow one another; old parts stay, all are there when it is built again."""
    once = grown(type=first, **TYPES[first])
    before = digest(once.state())
    twice = grow_again(once, type=second, **TYPES[second])
    state = {name: tensor.clone() for name, tensor in twice.state().items()}
    after = digest(state)
    head = {name for name in before if name.startswith("classifier.6.")}
    assert {name for name in before if after.get(name) != before[name]} <= head
    assert len(structures_in({n: t.shape for n, t in state.items()})) == 2
    again = network("mini8", pretrained=state)
    x = images("mini8")
    twice.eval()
    again.eval()
    with torch.no_grad():
        assert torch.equal(twice(x), again(x))


@pytest.mark.parametrize(
    ("model", "kind"),
    [("mini8", kind) for kind in TYPES] + [("efficientnet_lite0", "wa"), ("vit_b_32", "dwa")],
)
def test_layers_of_a_grown_network_can_be_listened_to(model: str, kind: str) -> None:
    """Old layers keep their numbers and say the same; the classifier's last input is the joined."""
    plain = network(model, pretrained=random_state(model))
    num_old, x = len(plain.layers), images(model, 2)
    heard: list[dict[int, torch.Tensor]] = [{}, {}]
    Taps(plain, x.shape[-1])(x, lambda n, out: heard[0].update({n: out.map.clone()}))
    big = grown(model, type=kind, **TYPES[kind])
    taps = Taps(big, x.shape[-1])
    logits = taps(x, lambda n, out: heard[1].update({n: out.map.clone()}))
    assert taps.numbers == (*heard[0], *range(num_old + 1, len(big.layers) + 1))
    assert set(big.numbers) == set(range(1, len(big.layers) + 1))
    same = [number for number in heard[0] if number != num_old]
    assert all(torch.equal(heard[0][number], heard[1][number]) for number in same)
    assert torch.equal(heard[1][num_old].flatten(1), logits)
    big.eval()
    columns = big.module.get_submodule(classifier_path(big))
    joined = heard[1][len(big.layers)].flatten(1)
    with torch.no_grad():
        torch.testing.assert_close(columns.forward(joined), logits)


def test_an_incomplete_growth_is_refused() -> None:
    """Weights that lack a part say so, with names."""
    state = grown(type="wa", units=8).state()
    for name in ("grown.1.beside.bias", "classifier.6.more.1"):
        with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
            network("mini8", pretrained={n: t for n, t in state.items() if n != name})
    damaged = {n: t for n, t in state.items() if n != "grown.1.beside.weight"}
    with pytest.raises(WeightsError):
        network("mini8", pretrained=damaged)


def test_new_units_are_dropped_like_the_old_ones_beside_them() -> None:
    """What reads fc6 drops half of it in training, of new units too; the classifier drops none."""
    net = grown(type="wwa", units=400, units_below=400, scale="off")
    net.train()
    seen: dict[str, torch.Tensor] = {}
    for name in ("below", "beside"):
        part = net.module.get_submodule(f"grown.1.{name}")
        part.register_forward_hook(lambda _p, _g, result, name=name: seen.update({name: result}))
    net.set_keys(0, torch.arange(4))
    net(images("mini8"))
    shares = {name: float((tensor == 0).double().mean()) for name, tensor in seen.items()}
    assert shares["below"] > shares["beside"] + 0.1
    first = seen["below"].clone()
    net.set_keys(0, torch.arange(4))
    net(images("mini8"))
    assert torch.equal(seen["below"], first), "drawn by image and step"


# --- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("growth", "says"),
    [
        ({"type": "wa"}, "needs either units or parameters"),
        ({"type": "wa", "units": 3, "parameters": 3}, "needs either units or parameters"),
        ({"type": "scale_only", "units": 3}, "has no units"),
        ({"type": "wa", "units": 3, "units_below": 3}, "units_below goes with type: wwa"),
        ({"type": "wa", "units": 3, "units_on_top": 3}, "units_on_top goes with type: dwa"),
        ({"type": "wwa", "parameters": 300, "units_below": 3}, "sizes all new parts"),
        ({"type": "da", "units": 3, "init": "copy_rand"}, "copy_rand goes with"),
        ({"type": "lora", "units": 3, "scale": "on"}, "scale: on goes with"),
        ({"type": "scale_only", "scale": "off"}, "is none"),
        ({"type": "da", "units": 3, "at_step": 3}, "in the middle"),
        ({"type": "da", "units": 3, "blocks": "on"}, "blocks: on goes with"),
        ({"type": "wider", "units": 3}, "type"),
    ],
)
def test_growths_that_make_no_sense_are_refused(growth: dict[str, Any], says: str) -> None:
    """Contradictions are told before anything runs."""
    with pytest.raises(ValidationError, match=says):
        GrowthParams(**growth)


@pytest.mark.parametrize(
    ("model", "growth", "says"),
    [
        ("squeezenet1_0", {"type": "da", "units": 3}, "no linear layer"),
        ("densenet121", {"type": "wa", "units": 3}, "no units can stand beside it"),
        ("resnet18", {"type": "wwa", "units": 4}, "two fully-connected layers"),
        ("resnet18", {"type": "wa", "units": 4, "init": "copy_rand"}, "init: copy_rand needs"),
    ],
)
def test_networks_that_cannot_grow_so_say_why(
    model: str, growth: dict[str, Any], says: str
) -> None:
    """The message names what is missing."""
    with pytest.raises(InputError, match=says):
        grow_again(network(model), **growth)


@pytest.mark.parametrize(
    "model", ["mini8", "alexnet", "vgg11", "mobilenet_v3_small", "maxvit_t", *POOLED]
)
def test_layers_called_fully_connected_are_no_fewer_than_those_that_are(model: str) -> None:
    """So a plan refuses by their names no growth that would work."""
    module, layers = skeleton(model, 3)
    place = place_in(module, layers, model, classifier_of(module, layers, model))
    assert num_fully_connected(model) >= place.num_fully_connected
    assert (model in POOLED) == (num_fully_connected(model) == 0)


@pytest.mark.parametrize("growth", [{"type": "lora", "units": 2}, {"type": "wwa", "units": 2}])
def test_what_cannot_grow_so_is_refused_when_planned(growth: dict[str, Any]) -> None:
    """The network's layers are known by their names then."""
    with pytest.raises(InputError, match=r"fully-connected.*resnet18 does not have"):
        params(
            model={"name": "resnet18"}, layers="FT(1-9)R(10)", growth=growth,
            target={"decode_size": 32, "crop_size": 32},
        )  # fmt: skip


def test_only_what_is_copied_once_can_be_copied() -> None:
    """Net2Net is for networks that have not grown before."""
    with pytest.raises(InputError, match="has grown before"):
        grow_again(grown(type="wa", units=3), type="net2deeper")


def test_none_is_the_network_itself() -> None:
    """The control arm has no new part at all."""
    plain = network("mini8")
    assert grow_again(plain, type="none") is plain
    assert replace(plain).layers == plain.layers and SIZES["mini8"] == 28
