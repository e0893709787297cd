"""Seed streams: every source of randomness has a name and its own seed.

A run's seeds are functions of (experiment seed, replicate, stream name) and of nothing else, so
that all cells of one replicate share split, subset, order and crops: contrasts become paired.
"""

from __future__ import annotations

import hashlib

STREAMS = ("split", "classes", "subset", "init", "order", "augment", "dropout", "source")


def keyed_hash(*parts: str | int) -> int:
    """A 63-bit number that depends on every part and its position, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def streams(seed: int, replicate: int) -> dict[str, int]:
    """The seed of each stream for one replicate (0-based) of an experiment."""
    return {name: keyed_hash("ftd-seed", seed, replicate, name) for name in STREAMS}
