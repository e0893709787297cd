"""Dropout masks depend on who is in the batch and on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.models.dropout import DropoutKeys, KeyedDropout, random_bits
from tests.networks import network

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12, unique=True).map(
    lambda keys: torch.tensor(keys, dtype=torch.int64)
)


def dropped(
    keys: torch.Tensor, num_units: int = 40, seed: int = 1, step: int = 3, layer: str = "fc6"
) -> torch.Tensor:
    """Which units of which sample are dropped, at rate 0.5."""
    shared = DropoutKeys(seed, step, keys)
    out: torch.Tensor = KeyedDropout(0.5, layer, shared)(torch.ones(len(keys), num_units))
    return out == 0


@given(KEYS, st.randoms(use_true_random=False))
def test_masks_follow_the_sample(keys: torch.Tensor, random: object) -> None:
    """Permuting or cutting the batch permutes or cuts the masks; more units extend them."""
    order = list(range(len(keys)))
    random.shuffle(order)  # type: ignore[attr-defined]
    mask = dropped(keys)
    assert torch.equal(dropped(keys[order]), mask[order])
    assert torch.equal(dropped(keys[:1]), mask[:1])
    assert torch.equal(dropped(keys, num_units=60)[:, :40], mask)


def test_masks_differ_by_seed_step_layer_and_sample() -> None:
    """Each part of a mask's identity changes it."""
    keys = torch.arange(8)
    mask = dropped(keys)
    others = [
        dropped(keys, seed=2),
        dropped(keys, step=4),
        dropped(keys, layer="fc7"),
        dropped(keys + 8),
        mask.roll(1, dims=0),
    ]
    for other in others:
        assert 0.35 < (mask != other).float().mean().item() < 0.65


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_dropout_has_its_rate_and_keeps_the_mean(rate: float) -> None:
    """The share of dropped units is the rate, within 5 standard errors, and the mean stays."""
    shared = DropoutKeys(1, 0, torch.arange(200))
    out = KeyedDropout(rate, "fc6", shared)(torch.ones(200, 500))
    error = 5 * (rate * (1 - rate) / out.numel()) ** 0.5
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=error)
    assert out.mean().item() == pytest.approx(1, abs=error / (1 - rate) + 1e-6)
    assert set(out.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - rate)).item()}


def splitmix64(state: int, count: int) -> list[int]:
    """The published generator, in Python's integers."""
    numbers, word = [], (1 << 64) - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & word
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
        numbers.append(z ^ (z >> 31))
    return numbers


def test_random_bits_are_splitmix64() -> None:
    """Each row is the published SplitMix64 sequence, seeded by the mixed sample key."""
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]
    golden = 0x9E3779B97F4A7C15
    for key, sample in ((0, 5), (2**63 - 1, -1), (77, -(2**63))):
        start = ((sample ^ key) - golden) % 2**64  # so that the first output mixes sample ^ key
        expected = splitmix64(splitmix64(start, 1)[0], 6)
        bits = random_bits(key, torch.tensor([sample]), 6)
        assert [number % 2**64 for number in bits[0].tolist()] == expected


def test_dropout_is_off_in_eval_and_refuses_unknown_samples() -> None:
    """Evaluation needs no keys; a training step with keys of another batch is an error."""
    dropout = KeyedDropout(0.5, "fc6", DropoutKeys(1))
    units = torch.randn(3, 5)
    with pytest.raises(ValueError, match="3 samples, 0 sample keys"):
        dropout(units)
    assert torch.equal(dropout.eval()(units), units)


def test_whole_networks_drop_by_sample() -> None:
    """In a network too, a sample's logits do not depend on its neighbours (no BatchNorm there)."""
    net = network("alexnet")
    net.train()
    images, keys = torch.randn(3, 3, 64, 64), torch.tensor([11, 22, 33])
    net.set_keys(5, keys)
    together = net(images)
    net.set_keys(5, keys[1:2])
    torch.testing.assert_close(net(images[1:2]), together[1:2], atol=1e-5, rtol=1e-4)
    net.set_keys(6, keys)
    assert not torch.allclose(net(images), together, atol=1e-3)
