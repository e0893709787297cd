"""Dropout whose mask depends on who is in the batch, never on the draws that came before.

Unit u of a sample is dropped by hash(seed, layer, step, sample key, u), and its whole branch of a
residual block, in stochastic depth, by hash(seed, layer, step, sample key).  So neither the place
of a sample in its batch, nor the batch size, nor other layers, nor interruptions change a mask, and
the CPU and a GPU draw the same one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

from ftd.seeds import keyed_hash

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _fold_(bits: torch.Tensor, shift: int) -> torch.Tensor:
    """bits ^= bits >>> shift; the mask undoes the sign bits that an arithmetic shift brings in."""
    return bits.bitwise_xor_((bits >> shift).bitwise_and_((1 << (64 - shift)) - 1))


def mixed(bits: torch.Tensor) -> torch.Tensor:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014) of each int64, as a new tensor."""
    bits = bits.clone()
    _fold_(bits, 30).mul_(_signed(_MIX_1))
    _fold_(bits, 27).mul_(_signed(_MIX_2))
    return _fold_(bits, 31)


def random_bits(key: int, sample_keys: torch.Tensor, num_units: int) -> torch.Tensor:
    """64 random bits, int64 (N, num_units): row n is SplitMix64 seeded by (key, sample_keys[n])."""
    unit = torch.arange(1, num_units + 1, device=sample_keys.device)
    start = mixed(sample_keys.bitwise_xor(_signed(key)))
    return mixed(start.unsqueeze(1) + unit * _signed(_GAMMA))


@dataclass
class DropoutKeys:
    """What all dropouts of a network draw from; the training loop sets it before each step."""

    seed: int
    step: int = 0
    sample_keys: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    uses: Counter[str] = field(default_factory=Counter)  # of each layer in this forward pass

    def drawn_from(self, layer: str) -> int:
        """The key of the next mask of `layer`: some blocks use one module twice in a pass."""
        use = self.uses[layer]
        self.uses[layer] += 1
        return keyed_hash("dropout", self.seed, layer, self.step, *([use] if use else []))


class KeyedDropout(nn.Module):
    """Zero each unit with probability `rate` in training and scale the others by 1 / (1 - rate)."""

    def __init__(self, rate: float, layer: str, keys: DropoutKeys) -> None:
        super().__init__()
        self.rate = rate
        self.layer = layer
        self.keys = keys

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"rate={self.rate}, layer={self.layer}"

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Drop units (N, ...); needs the sample keys of exactly these N samples."""
        if not self.training or self.rate == 0:
            return units
        dropped = self._dropped(units, units[0].numel()).view(units.shape)
        return (units * (1 / (1 - self.rate))).masked_fill(dropped, 0)

    def _dropped(self, units: torch.Tensor, num_units: int) -> torch.Tensor:
        """Which of `num_units` of each of the N samples are dropped: bool (N, num_units)."""
        sample_keys = self.keys.sample_keys.to(units.device)
        if sample_keys.shape != units.shape[:1]:
            raise ValueError(
                f"dropout of {self.layer}: {len(units)} samples, {len(sample_keys)} sample keys; "
                "call set_keys before each training step"
            )
        bits = random_bits(self.keys.drawn_from(self.layer), sample_keys, num_units)
        return bits < _signed(round(self.rate * 2.0**64) + (1 << 63))


class KeyedDropPath(KeyedDropout):
    """Stochastic depth (Huang et al. 2016): drop a branch of a sample as a whole, or scale it."""

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Drop rows of `branch` (N, ...), the others are scaled by 1 / (1 - rate)."""
        if not self.training or self.rate == 0:
            return branch
        dropped = self._dropped(branch, 1).view(-1, *[1] * (branch.dim() - 1))
        return (branch * (1 / (1 - self.rate))).masked_fill(dropped, 0)
