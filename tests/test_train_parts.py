"""Schedules, optimizer groups and numerics: what the loop is made of."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.params.train import TrainParams
from jobs.train import numerics
from jobs.train.optimizer import build_optimizer, load_optimizer_state, optimizer_state, set_lr
from jobs.train.schedule import lr_factor
from tests.networks import network


def params(**fields: object) -> TrainParams:
    return TrainParams.model_validate({"epochs": 1, **fields})


def factors(num_steps: int, train: TrainParams, per_epoch: int = 10) -> list[float]:
    return [lr_factor(train, step, num_steps, per_epoch) for step in range(num_steps)]


def reference(num_steps: int, make: object) -> list[float]:
    """The learning rates torch's own scheduler gives to a base of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs() -> None:
    """The cosine falls as CosineAnnealingLR does."""
    wanted = reference(40, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=40))
    assert factors(40, params(schedule="cosine")) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("size", [{"step_size_steps": 15}, {"step_size_epochs": 1.5}])
def test_step_is_torchs(size: dict[str, float]) -> None:
    """The step schedule drops as StepLR does, its size in steps or in epochs."""
    wanted = reference(40, lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=15, gamma=0.3))
    assert factors(40, params(schedule="step", gamma=0.3, **size)) == pytest.approx(wanted)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_rises_to_the_peak(schedule: str) -> None:
    """The rate rises linearly, reaches 1 and goes on as if it began there."""
    found = factors(30, params(schedule=schedule, warmup_steps=5))
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    rest = factors(25, params(schedule=schedule))
    assert found[5:] == pytest.approx(rest)


@given(
    st.integers(1, 200),
    st.integers(1, 50),
    st.sampled_from(["constant", "cosine", "step"]),
    st.one_of(st.none(), st.floats(0.1, 30)),
)
def test_factors_stay_between_0_and_1(
    num_steps: int, per_epoch: int, schedule: str, warmup: float | None
) -> None:
    """No schedule leaves its range, even when the warm-up is longer than the run."""
    size = {"step_size_epochs": 0.01} if schedule == "step" else {}
    train = params(schedule=schedule, warmup_epochs=warmup, **size)
    assert all(0 <= factor <= 1 for factor in factors(num_steps, train, per_epoch))


def test_groups_by_name_and_treatment() -> None:
    """New layers learn faster, biases and norms do not decay, frozen layers are in no group."""
    weights = network("resnet18", "FT(1-)").state()
    net = network("resnet18", "F(1-2)FT(3-9)R(10)", weights)
    optimizer = build_optimizer(net, params(lr=0.1, head_lr_factor=5, weight_decay=0.01))
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            (name,) = (n for n, p in net.module.named_parameters() if p is parameter)
            found[name] = (group["lr"], group["weight_decay"])
    assert set(found) == set(net.trainable())
    assert found["fc.weight"] == (0.5, 0.01) and found["fc.bias"] == (0.5, 0.0)
    assert found["layer4.1.conv1.weight"] == (0.1, 0.01)
    assert found["layer4.1.bn1.weight"] == (0.1, 0.0)
    assert not any(name.startswith(("conv1", "layer1.0")) for name in found)
    set_lr(optimizer, 0.5)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.05, 0.25]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_optimizer_state_by_name(kind: str) -> None:
    """State read by name and put into a new optimizer continues bit for bit."""

    def step(net: object, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in net.trainable().values():  # type: ignore[attr-defined]
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    train = params(optimizer=kind, lr=0.01)
    one = network("resnet18", "FT(1-)")
    optimizer = build_optimizer(one, train)
    step(one, optimizer, 1)
    other = network("resnet18", "FT(1-)")
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    resumed = build_optimizer(other, train)
    load_optimizer_state(other.trainable(), resumed, optimizer_state(one.trainable(), optimizer))
    slots = {"momentum_buffer"} if kind == "sgd" else {"step", "exp_avg", "exp_avg_sq"}
    assert {key.split("/")[0] for key in optimizer_state(other.trainable(), resumed)} == slots
    step(one, optimizer, 2)
    step(other, resumed, 2)
    for name, tensor in one.state().items():
        assert torch.equal(tensor, other.state()[name]), name


def test_exact_numerics_are_in_force() -> None:
    """Exact means deterministic algorithms on the threads asked for; the fingerprint says so."""
    before = torch.are_deterministic_algorithms_enabled()
    try:
        numerics.configure("exact", threads=1)
        assert torch.are_deterministic_algorithms_enabled()
        found = numerics.fingerprint("exact", "cpu")
        assert found["threads"] == 1 and found["torch"] == torch.__version__
        assert json.loads(json.dumps(found)) == found
        numerics.configure("fast", threads=1)
        assert not torch.are_deterministic_algorithms_enabled()
        assert numerics.fingerprint("fast", "cpu") != found
    finally:
        torch.use_deterministic_algorithms(before)
