"""Gradual unfreezing: which fine-tuned layers still wait at a step."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.layers import Treatment
from jobs.params.layerwise import UnfreezeParams


def waiting(
    wanted: UnfreezeParams, chosen: Sequence[Treatment], step: int, steps_per_epoch: int
) -> frozenset[int]:
    """The 0-based layers FT that are still treated as F at `step` (0-based).

    The last layer never waits; of the others one more, from the top, stops waiting each time.
    """
    steps = wanted.every_steps or (wanted.every_epochs or 1) * steps_per_epoch
    tuned = [index for index, treatment in enumerate(chosen[:-1]) if treatment == Treatment.FT]
    return frozenset(tuned[: max(len(tuned) - step // steps, 0)])
