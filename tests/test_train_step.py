"""One step: the loss and its gradient, what is added to it, in parts, in which precision, averaged.

What a formula says is compared with another library's implementation of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from ftd.errors import DataError
from jobs.data.batches import Batch
from jobs.data.mixing import Mix
from jobs.layers import Treatment
from jobs.models.dropout import DropoutKeys, KeyedDropout
from jobs.models.network import Layer, Network
from jobs.params.regularisation import EarlyStopParams, L2SPParams
from jobs.params.train import TrainParams
from jobs.train.average import MovingAverage
from jobs.train.l2_sp import StartingPoint
from jobs.train.loss import Objective, objective
from jobs.train.numerics import check_precision
from jobs.train.patience import Patience
from jobs.train.state import TrainingState
from jobs.train.step import Stepper
from tests.networks import NAMES, imagenet_state, network, scratch_state

LABELS = torch.tensor([0, 2, 1, 1, 2, 2])
WEIGHTS = torch.tensor([0.5, 2.0, 3.0])


def params(**fields: object) -> TrainParams:
    return TrainParams.model_validate({"epochs": 1, "lr": 0.05, "schedule": "constant", **fields})


def logits(seed: int = 0) -> torch.Tensor:
    """Scores of six images for three classes."""
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)) * 3


def batch(pixels: int = 32, mix: Mix | None = None, size: int = 6) -> Batch:
    """Noise with labels."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(size, 3, pixels, pixels, generator=generator)
    return Batch(images, LABELS[:size], torch.arange(size) + 50, mix)


def half_mixed() -> Mix:
    """Each image gets a share of the one after it."""
    share = torch.tensor([0.9, 0.6, 1.0, 0.7, 0.0, 0.8])
    return Mix(torch.arange(6).roll(-1), share, torch.zeros(6, 4, dtype=torch.int64))


def mean_loss(wanted: Objective, scores: torch.Tensor, of: Batch) -> torch.Tensor:
    """As a step computes it."""
    targets = wanted.targets(of)
    return wanted.sum(scores, targets) / wanted.weight(targets)


# --- the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_is_torchs_cross_entropy(smoothing: float, weights: torch.Tensor | None) -> None:
    """With class weights and label smoothing it is what torch's own mean gives."""
    found = mean_loss(Objective(3, False, smoothing, weights), logits(), batch())
    wanted = functional.cross_entropy(logits(), LABELS, weights, label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixed_images_have_mixed_losses(smoothing: float) -> None:
    """An image's loss is its share of its own label's and the rest of its partner's."""
    mix = half_mixed()
    found = mean_loss(Objective(3, False, smoothing), logits(), batch(mix=mix))
    own, others = (
        functional.cross_entropy(logits(), labels, reduction="none", label_smoothing=smoothing)
        for labels in (LABELS, LABELS[mix.partner])
    )
    torch.testing.assert_close(found, (mix.share * own + (1 - mix.share) * others).mean())


def test_weights_of_mixed_labels_are_mixed() -> None:
    """Where nothing of the partner is left, mixing changes neither loss nor weight."""
    alone = Mix(torch.arange(6).roll(1), torch.ones(6), torch.zeros(6, 4, dtype=torch.int64))
    wanted = Objective(3, class_weights=WEIGHTS)
    torch.testing.assert_close(
        mean_loss(wanted, logits(), batch(mix=alone)), mean_loss(wanted, logits(), batch())
    )
    targets = wanted.targets(batch(mix=half_mixed()))
    assert float(wanted.weight(targets)) == pytest.approx(float((targets @ WEIGHTS).sum()))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_have_binary_losses(smoothing: float) -> None:
    """Each class is one decision; smoothing pulls its label towards one half."""
    labels = functional.one_hot(LABELS, 3) | functional.one_hot(LABELS.roll(1), 3)
    of = Batch(batch().images, labels, batch().keys)
    found = mean_loss(Objective(3, True, smoothing), logits(), of)
    wanted = labels * (1 - smoothing) + smoothing / 2
    torch.testing.assert_close(
        found, functional.binary_cross_entropy_with_logits(logits(), wanted.float())
    )


def test_images_told_right_are_counted() -> None:
    """The greatest score counts; of a mixed image the larger part; of several labels the share."""
    scores = torch.eye(3)[torch.tensor([0, 2, 1, 0, 0, 0])]
    assert Objective(3).num_right(scores, LABELS) == 3
    mixed = Objective(3).targets(batch(mix=half_mixed()))  # image 4 is wholly its partner, class 2
    assert Objective(3).num_right(torch.eye(3)[LABELS], mixed) == 6
    several = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert Objective(3, True).num_right(torch.tensor([[1.0, -1, -1], [2, -1, -1]]), several) == (
        pytest.approx(4 / 3)
    )


@given(st.lists(st.integers(0, 2), min_size=3, max_size=50))
def test_balanced_weights_are_scikit_learns(extra: list[int]) -> None:
    """A class weighs N / (K x its images)."""
    labels = np.array([0, 1, 2, *extra])
    found = objective(params(class_weights="balanced"), NAMES, labels, "cpu").class_weights
    assert found is not None
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_weights_by_name() -> None:
    """Classes that are not named weigh 1; an unknown one is told, with what was meant."""
    found = objective(params(class_weights={"dog": 3}), NAMES, LABELS.numpy(), "cpu").class_weights
    assert found is not None and found.tolist() == [1, 3, 1]
    with pytest.raises(DataError, match=r"names 'dogg', which is no class.*dog"):
        objective(params(class_weights={"dogg": 3}), NAMES, LABELS.numpy(), "cpu")


# --- the step ---------------------------------------------------------------------------------


def stepped(net: Network, train: TrainParams, of: Batch, num_steps: int = 1) -> TrainingState:
    """The state after steps on one batch; gradients of the last step are still there."""
    weights = None if train.class_weights is None else WEIGHTS
    wanted = Objective(3, False, train.label_smoothing, weights)
    state = TrainingState.initial(net, train, "cpu")
    stepper = Stepper(train, wanted, 10, 100, "cpu")
    for _ in range(num_steps):
        stepper.take(state, of)
    return state


def tuned() -> Network:
    """Published weights, the last convolution fine-tuned."""
    return network("efficientnet_lite0", "F(1-17)FT(18)R(19)", imagenet_state())


def without_batchnorm() -> Network:
    """A convolution, dropout and a classifier; its weights are always the same."""
    keys, generator = DropoutKeys(3), torch.Generator().manual_seed(5)
    parts = [nn.Conv2d(3, 4, 3, 2), nn.ReLU(), KeyedDropout(0.5, "fc", keys), nn.Flatten()]
    module = nn.Sequential(*parts, nn.Linear(4 * 15 * 15, 3))
    with torch.no_grad():
        for own in module.parameters():
            own.normal_(0, 0.1, generator=generator)
    layers = (Layer("conv", ("0",)), Layer("fc", ("2", "4")))
    return Network("small", module, layers, (Treatment.FT, Treatment.R), NAMES, keys)


def gradients(net: Network) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that has one."""
    return {name: own.grad.clone() for name, own in net.trainable().items() if own.grad is not None}


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
@pytest.mark.parametrize("extra", [{}, {"class_weights": "balanced"}, {"mix": True}], ids=str)
def test_parts_add_up_to_the_whole_batch(micro_batch_size: int, extra: dict[str, object]) -> None:
    """Without BatchNorm, micro-batches have the gradient, loss and right answers of the batch."""
    fields = {name: value for name, value in extra.items() if name != "mix"}
    of = batch(mix=half_mixed() if "mix" in extra else None)
    found = []
    for micro in (None, micro_batch_size):
        net = without_batchnorm()
        state = stepped(net, params(micro_batch_size=micro, **fields), of)
        found.append((gradients(net), state.sums))
    for name, whole in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-5, atol=0)


def test_batchnorm_sees_the_parts() -> None:
    """With BatchNorm, micro-batches are another computation: its statistics are those of parts."""
    found = []
    for micro in (None, 3):
        net = network("resnet18", "FT(1-)", scratch_state("resnet18"))
        before = int(net.state()["bn1.num_batches_tracked"])
        stepped(net, params(micro_batch_size=micro), batch())
        found.append(int(net.state()["bn1.num_batches_tracked"]) - before)
    assert found == [1, 2]


def test_gradients_are_clipped_to_a_norm() -> None:
    """All gradients together are scaled to the norm; those below it are left alone."""
    norms = {}
    for clip_norm in (None, 0.5, 1e6):
        net = tuned()
        stepped(net, params(clip_norm=clip_norm), batch())
        found = gradients(net)
        norms[clip_norm] = torch.cat([own.flatten() for own in found.values()]).norm().item()
    assert 0.5 < norms[None] < 1e6
    assert norms[0.5] == pytest.approx(0.5, rel=1e-4)
    assert norms[1e6] == norms[None]


def test_l2_sp_is_the_gradient_of_its_penalty() -> None:
    """What is added to gradients is what automatic differentiation gives for the formula."""
    net = network("resnet18", "F(1-7)FT(8-9)R(10)", scratch_state("resnet18"))
    start = StartingPoint(net, L2SPParams(alpha=0.3, beta=0.7))
    assert start.penalty().item() == pytest.approx(
        0.35 * sum((own**2).sum().item() for name, own in net.trainable().items()
                   if name == "fc.weight")
    )  # fmt: skip
    with torch.no_grad():
        for number, own in enumerate(net.trainable().values()):
            own.add_(0.01 * (number + 1))
    start.penalty().backward()
    wanted = gradients(net)
    for own in net.trainable().values():
        own.grad = torch.zeros_like(own)
    start.add_to_gradients()
    assert {name.rpartition(".")[2] for name in wanted} == {"weight"}
    for name, found in gradients(net).items():
        torch.testing.assert_close(found, wanted.get(name, torch.zeros_like(found)))


def test_l2_sp_keeps_layers_near_their_start() -> None:
    """The stronger it is, the less far fine-tuned layers go; weight decay has no say then."""
    distances = []
    for alpha in (0.0, 1.0, 10.0):
        net, name = tuned(), "conv_head.weight"
        train = params(l2_sp={"alpha": alpha, "beta": 0}, weight_decay=0.5)
        state = stepped(net, train, batch(), num_steps=6)
        assert {group["weight_decay"] for group in state.optimizer.param_groups} == {0.0}
        distances.append((net.state()[name] - imagenet_state()[name]).norm().item())
    assert distances[0] > distances[1] > distances[2]


# --- precision and layout ---------------------------------------------------------------------


def test_bfloat16_computes_in_it_and_keeps_float32() -> None:
    """Gradients are near those of float32 and not equal; weights and buffers stay float32."""
    found = []
    for precision in ("float32", "bfloat16"):
        net = tuned()
        state = stepped(net, params(precision=precision), batch())
        kinds = {tensor.dtype for tensor in net.state().values()}
        assert kinds == {torch.float32, torch.int64}
        found.append((gradients(net)["fc.weight"], state.sums))
    assert not torch.equal(found[0][0], found[1][0])
    assert (found[0][0] - found[1][0]).norm() < 0.3 * found[0][0].norm()
    torch.testing.assert_close(found[0][1][0], found[1][1][0], rtol=0.05, atol=0)


def test_float16_is_for_gpus() -> None:
    """A CPU run that asks for float16 is refused, in the words of the spec."""
    with pytest.raises(DataError, match=r"train.precision: float16 is for GPUs"):
        check_precision("float16", "cpu")
    for precision, device in [("float16", "cuda"), ("bfloat16", "cpu"), ("float32", "cpu")]:
        check_precision(precision, device)


@pytest.mark.parametrize(
    ("model", "wanted", "is_last"),
    [
        ("resnet18", "auto", False),
        ("resnet18", "on", True),
        ("efficientnet_lite0", "auto", True),
        ("efficientnet_lite0", "off", False),
    ],
)
def test_channels_last_is_a_layout(model: str, wanted: str, is_last: bool) -> None:
    """Kernels are laid out as asked for; auto does so for depthwise convolutions on a CPU."""
    net = network(model, "FT(1-)")
    TrainingState.initial(net, params(channels_last=wanted), "cpu")
    kernel = next(
        own for own in net.trainable().values() if own.dim() == 4 and own.shape[1] > 1
    )  # fmt: skip
    assert kernel.is_contiguous(memory_format=torch.channels_last) == is_last


@dataclass(frozen=True)
class Folder:
    """A checkpoint in a folder."""

    step: int
    folder: Path

    def path(self, name: str) -> Path:
        """The file called `name`."""
        return self.folder / name


def halves(net: Network, train: TrainParams) -> TrainingState:
    """A state in float16, whose factor is small at first and doubles every second step."""
    state = TrainingState.initial(net, train, "cpu")
    assert state.scaler is not None
    state.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
    return state


def test_float16_scales_its_gradients_and_keeps_the_factor(tmp_path: Path) -> None:
    """The factor grows with good steps, falls with one that overflows (which changes no weight),
    and continues from a checkpoint as if nothing had happened."""
    train, wanted = params(precision="float16"), Objective(3)
    stepper = Stepper(train, wanted, 10, 100, "cpu")
    net = without_batchnorm()
    state = halves(net, train)
    assert state.scaler is not None
    for _ in range(3):
        stepper.take(state, batch())
    assert state.scaler.get_scale() == 128
    for name, write in state.writers().items():
        write(tmp_path / name)
    other = without_batchnorm()
    resumed = halves(other, train)
    resumed.restore(Folder(3, tmp_path))
    for one in (state, resumed):
        stepper.take(one, batch())
    assert resumed.scaler is not None
    assert resumed.scaler.state_dict() == state.scaler.state_dict()
    assert state.scaler.get_scale() == 256
    assert all(torch.equal(own, other.state()[name]) for name, own in net.state().items())
    before = {name: own.clone() for name, own in net.state().items()}
    large = batch()
    stepper.take(state, Batch(large.images * 1e30, large.labels, large.keys))
    assert state.scaler.get_scale() == 128
    assert all(torch.equal(own, net.state()[name]) for name, own in before.items())


# --- the average ------------------------------------------------------------------------------


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12), st.floats(0, 0.99))
@settings(max_examples=30)
def test_the_average_is_the_recursion(values: list[float], decay: float) -> None:
    """After each step it is decay x itself + (1 - decay) x the weights; counts are copied."""
    live = {"w": torch.zeros(4), "n": torch.zeros((), dtype=torch.int64)}
    average, wanted = MovingAverage(live, decay), 0.0
    for count, value in enumerate(values, start=1):
        live["w"].fill_(value)
        live["n"].fill_(count)
        average.update()
        wanted = decay * wanted + (1 - decay) * value
    assert average.tensors["w"].tolist() == pytest.approx([wanted] * 4, abs=1e-5)
    assert average.tensors["n"].item() == len(values)


def test_steps_average_all_that_changes() -> None:
    """The average starts at the first weights, follows each step, and never touches training."""
    one, other = tuned(), tuned()
    first = {name: tensor.clone() for name, tensor in one.state().items()}
    averaged = stepped(one, params(ema_decay=0.75), batch(), num_steps=1)
    plain = stepped(other, params(), batch(), num_steps=1)
    assert averaged.average is not None and plain.average is None
    assert set(averaged.average.tensors) == set(averaged.weights())
    for name, tensor in averaged.weights().items():
        assert torch.equal(tensor, plain.weights()[name])
        if tensor.is_floating_point():
            wanted = 0.75 * first[name] + 0.25 * tensor
            torch.testing.assert_close(averaged.average.tensors[name], wanted)
    trained = averaged.show_average()
    name = "conv_head.weight"
    assert torch.equal(one.state()[name], averaged.average.tensors[name])
    averaged.load_weights(trained)
    assert torch.equal(one.state()[name], other.state()[name])


# --- patience ---------------------------------------------------------------------------------


def patience(metric: str, **fields: float) -> Patience:
    return Patience(EarlyStopParams.model_validate(fields), metric)


def over_at(chosen: Patience, values: list[float], every: int = 10) -> int | None:
    """The step of the validation after which it is over."""
    for number, value in enumerate(values, start=1):
        chosen.look(number * every, value)
        chosen.look(number * every, value)  # a validation repeated after a resume
        if chosen.is_over(number * every):
            return number * every
    return None


@pytest.mark.parametrize(
    ("metric", "fields", "values", "wanted"),
    [
        ("val/top1", {"patience_steps": 20}, [0.1, 0.2, 0.2, 0.2, 0.9], 40),
        ("val/top1", {"patience_steps": 30}, [0.1, 0.2, 0.2, 0.2, 0.9], None),
        ("val/nll", {"patience_steps": 20}, [0.1, 0.2, 0.3, 0.4], 30),
        ("val/nll", {"patience_steps": 20}, [0.4, 0.3, 0.2, 0.1], None),
        ("val/nll", {"patience_steps": 15}, [0.3, 0.4, 0.2, 0.3, 0.3], 50),
        ("val/top1", {"patience_steps": 20, "min_delta": 0.15}, [0.1, 0.2, 0.24, 0.9], 30),
        ("val/top1", {"patience_steps": 20, "min_delta": 0.05}, [0.1, 0.2, 0.24, 0.9], None),
    ],
)
def test_patience_ends(
    metric: str, fields: dict[str, float], values: list[float], wanted: int | None
) -> None:
    """So many steps after the last improvement, in the metric's direction, beyond min_delta."""
    assert over_at(patience(metric, **fields), values) == wanted
