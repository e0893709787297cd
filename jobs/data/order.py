"""In which order images are trained on: a function of (seed, epoch, sample digests)."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.data.keyed import Bits, Indices, keyed_order


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
    _latest: tuple[int, Indices] | None = field(default=None, repr=False)  # saves sorting again

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one epoch."""
        return -(-len(self.digests) // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch (from 0) that `step` (from 0) is part of."""
        return step // self.steps_per_epoch

    def epoch(self, number: int) -> Indices:
        """Epoch `number`'s permutation of 0..N-1."""
        if self._latest is None or self._latest[0] != number:
            self._latest = number, keyed_order(self.digests, "order", self.seed, number)
        return self._latest[1]

    def batch(self, step: int) -> Indices:
        """The positions (0..N-1) that make up the batch of `step`."""
        number, part = divmod(step, self.steps_per_epoch)
        num_samples, parts = len(self.digests), self.steps_per_epoch
        return self.epoch(number)[num_samples * part // parts : num_samples * (part + 1) // parts]
