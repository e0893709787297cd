"""The two networks that are compared: that a run started from, and the one it kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftd.errors import DataError, WeightsError
from ftd.job import Context
from jobs.data.keyed import Bits
from jobs.inspection.weights import unmoved
from jobs.layers import Treatment, numbered, treatments
from jobs.measure.predictions import tested_on
from jobs.models.build import build
from jobs.models.description import Description
from jobs.models.kept import starting_weights
from jobs.models.network import Layer, Network
from jobs.params.model import ModelParams
from jobs.records import Preprocessing
from jobs.sources import WeightsRun


@dataclass(frozen=True)
class Compared:
    """One network in two states, for the same classes.

    Layers that the run re-initialised have no weights before: what `before` holds there means
    nothing, and :meth:`treatment` says which they are.  `after` may have grown: it has more layers.
    """

    before: Network
    after: Network

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of all layers, ascending: the parts that the run grew come last."""
        return tuple(sorted(self.after.numbers))

    @property
    def grown(self) -> tuple[int, ...]:
        """The numbers of the parts that the run grew, in the order of computation."""
        return tuple(number for number in self.numbers if number not in self.before.numbers)

    def layer(self, number: int) -> Layer:
        """The layer that has `number`."""
        return self.after.layers[self.after.numbers.index(number)]

    def treatment(self, number: int) -> Treatment:
        """What the run did to a layer; what it grew counts as re-initialised."""
        if number in self.grown:
            return Treatment.R
        return self.before.treatments[self.before.numbers.index(number)]


def compared(
    model: ModelParams,
    after: WeightsRun,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    context: Context,
) -> Compared:
    """`model` as the run `after` started from it, and as the run kept it, for `class_names`.

    Raises WeightsError when the run is of another network or started from other weights.
    """
    told, every = Description.of_run(after, context), numbered(model.name)
    told.check_model(after.kept.called, model.name)
    chosen = treatments(told.layers, len(every))
    ended = model.model_copy(update={"weights": after})
    tuned = (Treatment.FT,) * len(every)
    networks = [
        build(
            model.name,
            class_names,
            which,
            starting_weights(source, class_names, which, preprocessing, context),
            init_seed=0,  # of layers that are not compared
            dropout_seed=0,
        )
        for source, which in ((model, chosen), (ended, tuned))
    ]
    found = Compared(networks[0], networks[1])
    _check_start(found, after.kept.called)
    return found


def _check_start(found: Compared, run: str) -> None:
    """Raise WeightsError when a layer that the run froze is not what it is said to start from."""
    states = found.before.state(), found.after.state()
    for layer, treatment in zip(found.before.layers, found.before.treatments, strict=True):
        if treatment == Treatment.F and not unmoved(found.before.module, layer, *states):
            raise WeightsError(
                f"{run} froze {layer.name}, but kept other weights there than those before: it "
                "did not start from these",
                where="model.weights",
                fix="Give model as in the run's spec",
            )


def check_untested(after: WeightsRun, digests: Bits, context: Context) -> None:
    """Raise DataError when the run tested on an image among `digests` (uint64, N)."""
    called = after.kept.called
    number = int(np.isin(digests, tested_on(called, context)).sum())
    if number:
        raise DataError(
            f"{called} was tested on {number} of the {len(digests)} images to look at",
            where="target",
            fix="Give target, seed and seeds as in the run's spec",
        )
