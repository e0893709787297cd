"""In which order images are trained on: a function of (seed, epoch, sample digests)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from jobs.data.keyed import Bits, Indices, keyed_bits, keyed_order, splitmix64


class Drawing(Protocol):
    """Which samples make up the batch of a step: whatever can be asked for any step."""

    def batch(self, step: int) -> Indices:
        """Their positions (0..N-1)."""

    def epoch_of(self, step: int) -> int:
        """The epoch (from 0) that `step` (from 0) is part of."""

    def keys(self, step: int, digests: Bits) -> Bits:
        """What draws for the samples of `step` are keyed by; theirs are `digests`."""


@dataclass(frozen=True)
class Epoch:
    """Which positions (int64, N) an epoch takes, in order; ``repeats`` says of each how often it
    was taken before in this epoch (None: never)."""

    positions: Indices
    repeats: Indices | None = None


@dataclass
class Order:
    """Epochs cut into batches; any step can be asked for without the ones before it.

    Every epoch takes each of the N samples once.  The batch size only cuts it: into the fewest
    batches of at most `batch_size`, their sizes differing by at most one, because a small last
    batch would be a noisy step (and batch normalisation cannot work on one sample).
    """

    digests: Bits
    batch_size: int
    seed: int
    _latest: tuple[int, Epoch] | None = field(default=None, init=False, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one epoch."""
        return -(-len(self.digests) // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch (from 0) that `step` (from 0) is part of."""
        return step // self.steps_per_epoch

    def epoch(self, number: int) -> Indices:
        """The positions that epoch `number` takes, in its order."""
        return self._epoch(number).positions

    def batch(self, step: int) -> Indices:
        """The positions (0..N-1) that make up the batch of `step`."""
        return self.epoch(self.epoch_of(step))[self.batch_of(step)]

    def batch_of(self, step: int) -> slice:
        """Which part of its epoch the batch of `step` is."""
        part, parts = step % self.steps_per_epoch, self.steps_per_epoch
        num_samples = len(self.digests)
        return slice(num_samples * part // parts, num_samples * (part + 1) // parts)

    def keys(self, step: int, digests: Bits) -> Bits:
        """What draws for the samples of `step` are keyed by: their `digests`, but each repeat in
        an epoch has another key, so that it looks different."""
        repeats = self._epoch(self.epoch_of(step)).repeats
        if repeats is None:
            return digests
        again = repeats[self.batch_of(step)].astype(np.uint64)
        return np.where(again == 0, digests, splitmix64(digests ^ splitmix64(again)))

    def _epoch(self, number: int) -> Epoch:
        latest = self._latest
        if latest is None or latest[0] != number:
            latest = number, self._taken(number)
            self._latest = latest  # at once: several threads ask
        return latest[1]

    def _taken(self, number: int) -> Epoch:
        return Epoch(keyed_order(self.digests, "order", self.seed, number))


@dataclass
class BalancedOrder(Order):
    """As many draws per epoch as there are samples, equally often from each of the K classes.

    Draw t of the whole run is of class t mod K; the draws of one class go through its samples in an
    order that is drawn anew for each pass, so that all of them are used equally often.  An epoch is
    N consecutive draws, in an order of its own.  A sample's second draw in one epoch has a key of
    its own, so that it looks different.
    """

    labels: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def _taken(self, number: int) -> Epoch:
        """Some occur several times, some not at all."""
        drawn, passes = self._draws(number)
        again = splitmix64(self.digests[drawn] ^ splitmix64(passes.astype(np.uint64)))
        places = np.argsort(keyed_bits(again, "order", self.seed, number), kind="stable")
        return Epoch(drawn[places], occurrences(drawn)[places])

    def _draws(self, number: int) -> tuple[Indices, Indices]:
        """An epoch's draws: position, and how often its class was gone through before."""
        classes = np.unique(self.labels)
        found = []
        for rank, label in enumerate(classes.tolist()):
            members = np.flatnonzero(self.labels == label)
            first, last = (
                -(-(len(self.digests) * epochs - rank) // len(classes))
                for epochs in (number, number + 1)
            )
            passes, places = np.divmod(np.arange(max(first, 0), last), len(members))
            for which in np.unique(passes).tolist():
                order = members[keyed_order(self.digests[members], "pass", self.seed, which)]
                drawn = order[places[passes == which]]
                found.append((drawn, np.full(len(drawn), which)))
        drawn = np.concatenate([positions for positions, _ in found])
        return drawn, np.concatenate([which for _, which in found])


def occurrences(positions: Indices) -> Indices:
    """How often each entry occurred before it."""
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.arange(len(positions)) - np.repeat(starts, np.diff(np.r_[starts, len(positions)]))
    found = np.empty_like(positions)
    found[order] = counts
    return found
