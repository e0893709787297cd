"""Hard target images: their levels, raised by rounds of predictions, and draws by level.

Ge, Yu: Borrowing treasures from the wealthy (CVPR 2017), section 3.3; levels and drawing images as
often as their level says are of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from jobs.data.keyed import Indices, keyed_order, splitmix64
from jobs.data.order import Epoch, Order, occurrences
from jobs.measure.calibration import log_probabilities
from jobs.params.joint import HardParams

Levels = npt.NDArray[np.int64]
Logits = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Which of N images were told wrong, and which right but uncertain."""

    wrong: Mask
    uncertain: Mask

    @classmethod
    def of(cls, logits: Logits, labels: Indices, wanted: HardParams) -> Judged:
        """By `logits` (N, K) and `labels` (N); what is not finite is wrong."""
        finite = np.isfinite(logits.sum(axis=1))
        log_p = log_probabilities(np.where(finite[:, None], logits, 0))
        entropy = -(np.exp(log_p) * log_p).sum(axis=1)
        delta = float(np.median(entropy)) if wanted.delta == "median" else wanted.delta
        wrong = ~finite | (logits.argmax(axis=1) != labels)
        return cls(wrong, ~wrong & (entropy >= delta))

    def raised(self, levels: Levels, wanted: HardParams) -> Levels:
        """The levels after this round."""
        up = wanted.wrong * self.wrong + wanted.uncertain * self.uncertain
        return np.minimum(levels + up, wanted.cap)


@dataclass
class LevelOrder(Order):
    """As many draws per epoch as there are samples, of each as often as its level says.

    Since the latest round the draws go through a list in which a sample at level n stands n times,
    in an order that is drawn anew for each pass.  With all at level 1 it is the plain order.
    ``standing`` tells the levels (int64, N) and the epoch that they hold from.
    """

    standing: Callable[[], tuple[Levels, int]] = field(kw_only=True)

    def _taken(self, number: int) -> Epoch:
        levels, since = self.standing()
        if (levels == 1).all():
            return super()._taken(number)
        entries = np.repeat(np.arange(len(levels)), levels)
        copies = occurrences(entries).astype(np.uint64)
        each = splitmix64(self.digests[entries] ^ splitmix64(copies))
        num_draws = len(self.digests)
        first = (number - since) * num_draws
        passes, places = np.divmod(np.arange(first, first + num_draws), len(entries))
        drawn = np.empty(num_draws, np.int64)
        for which in np.unique(passes).tolist():
            order = keyed_order(each, "level", self.seed, since, which)
            drawn[passes == which] = entries[order[places[passes == which]]]
        return Epoch(drawn, occurrences(drawn))
