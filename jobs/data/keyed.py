"""Random bits that belong to an image: functions of (key, sample digest), of nothing else.

A draw never depends on an image's position, on the batch, or on how many draws came before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ftd.seeds import keyed_hash

Bits = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def splitmix64(values: Bits) -> Bits:
    """The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
    generators, OOPSLA 2014), elementwise.

    A bijection of 64-bit numbers: different digests never tie.
    """
    mixed = values + np.uint64(0x9E3779B97F4A7C15)  # arrays wrap around, as they should
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def keyed_bits(digests: Bits, *key: str | int) -> Bits:
    """64 random bits per digest (uint64, any shape) under `key`."""
    return splitmix64(splitmix64(digests) ^ np.uint64(keyed_hash(*key)))


def keyed_order(digests: Bits, *key: str | int) -> Indices:
    """The permutation (int64, N) that sorts `digests` (uint64, N) by their bits under `key`.

    The order of any subset is a subsequence of the order of the whole.
    """
    return np.argsort(keyed_bits(digests, *key), kind="stable")


def keyed_uniform(digests: Bits, *key: str | int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per digest under `key`, a multiple of 2^-53."""
    return (keyed_bits(digests, *key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keyed_choice(digests: Bits, num_choices: int, *key: str | int) -> Indices:
    """One of 0..num_choices-1 (int64) per digest under `key`, uniform to `num_choices` / 2^32."""
    bits = keyed_bits(digests, *key) >> np.uint64(32)
    return (bits * np.uint64(num_choices) >> np.uint64(32)).astype(np.int64)
