"""Seed streams: every source of randomness has a name and its own seed.

A run's seeds are functions of (experiment seed, replicate, stream name) and of nothing else, so
that all cells of one replicate share split, subset, order and crops: contrasts become paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

STREAMS = ("split", "classes", "subset", "init", "order", "augment", "dropout", "source")


def keyed_hash(*parts: str | int) -> int:
    """A 63-bit number that depends on every part and its position, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def streams(seed: int, replicate: int) -> dict[str, int]:
    """The seed of each stream for one replicate (0-based) of an experiment."""
    return {name: nested_seed(seed, (replicate,), name) for name in STREAMS}


def nested_seed(seed: int, position: Sequence[int], name: str) -> int:
    """The seed of stream `name` at `position`: its number inside the next outer one's, and so on.

    The outermost number stands first.  The first repetition inside another has the seed it would
    have without being repeated, so that counting a stream on its own keeps the runs there are.
    """
    numbers = list(position)
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return keyed_hash("ftd-seed", seed, *numbers, name)


def pinned_seed(number: int, name: str) -> int:
    """The seed of a stream pinned to `number`: that of replicate `number` under seed 0."""
    return nested_seed(0, (number,), name)
