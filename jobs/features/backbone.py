"""A frozen network that images are looked at with: what determines what it says, and the network.

Saying what it is takes no torch: a run whose features are all in the store never builds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftd.files import sha256_of
from ftd.job import Context
from jobs import sources
from jobs.layers import Treatment, numbered
from jobs.models.description import Description
from jobs.params.model import ModelParams
from jobs.records import Preprocessing
from jobs.sources import WeightsRun

if TYPE_CHECKING:
    from jobs.data.images import Images
    from jobs.features.forward import Forward
    from jobs.models.network import Network
    from jobs.models.weights import State

NUM_CLASSES = 1000  # of a network without weights, as many as ImageNet has


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network in evaluation mode with the classifier its weights came with.

    ``identity`` (JSON values) determines its output for given pixels: network, content of the
    weights (or the seed they are drawn from), preprocessing.
    """

    model: ModelParams
    preprocessing: Preprocessing
    identity: Mapping[str, Any]
    _context: Context

    @property
    def name(self) -> str:
        """What people call the network."""
        return self.model.name

    def forward(self, images: Images, crop_size: int, batch_size: int, device: str) -> Forward:
        """The network ready to look at `images` of `crop_size` pixels, so many at once."""
        from jobs.features.forward import Forward  # torch

        return Forward(self, images, crop_size, batch_size, device)

    @cached_property
    def network(self) -> Network:
        """The network itself, on the run's device; built and loaded when it is first asked for.

        Its output is logits (N, classes of the weights).  Raises WeightsError for weights that
        are missing, damaged or of another network.
        """
        from jobs.models.build import build
        from jobs.train import numerics

        numerics.configure(self._context.numerics, self._context.threads)
        chosen = (Treatment.FT,) * len(numbered(self.model.name))
        class_names, state = _loaded(self.model, self.preprocessing, self._context)
        network = build(
            self.model.name,
            class_names,
            chosen,
            state,
            init_seed=self._context.seeds["init"],
            dropout_seed=0,
        )
        network.eval()
        return network.to(self._context.device)


def backbone(model: ModelParams, context: Context) -> Backbone:
    """The network that resolved `model` names, as its weights left it.

    Weights ``none`` are random ones, of the seed ``init``, under a classifier of `NUM_CLASSES`.
    The run's history says when the network has grown.
    """
    preprocessing = model.preprocessing
    identity = {
        "model": model.name,
        "weights": _weights(model, context),
        "preprocessing": preprocessing.as_json,
    }
    if isinstance(model.weights, WeightsRun):
        grown = Description.of_run(model.weights, context).grown
        if grown:
            context.note("numbered layers are old ones", num_growths=len(grown), all="read")
    return Backbone(model, preprocessing, identity, context)


def _weights(model: ModelParams, context: Context) -> Mapping[str, Any]:
    """What determines the weights' tensors, as JSON values."""
    found = dict(sources.identity(model.name, model.weights))
    for name, source in sources.inputs(model.name, model.weights).items():
        if source.kind == "run":  # by content: other runs may keep the same
            found[name] = sha256_of(context.kept(source.called, source.file))
        else:
            found[name] = context.verified(source)
    if model.weights == "none":
        found["init_seed"] = context.seeds["init"]
    return found


def _loaded(
    model: ModelParams, preprocessing: Preprocessing, context: Context
) -> tuple[tuple[str, ...], State | None]:
    """The classes and tensors of the weights; classes without known names are numbered."""
    from jobs.models.kept import starting_weights

    chosen = (Treatment.FT,) * len(numbered(model.name))
    if isinstance(model.weights, WeightsRun):
        names = Description.of_run(model.weights, context).class_names
        return names, starting_weights(model, names, chosen, preprocessing, context)
    state = starting_weights(model, (), chosen, preprocessing, context)
    return _numbers(NUM_CLASSES if state is None else _num_classes(model.name, state)), state


def _num_classes(model: str, state: State) -> int:
    """The number of rows of the classifier in `state`; as many as usual when it has none."""
    from jobs.models.build import skeleton
    from jobs.models.numbering import classifier_of

    classifier = classifier_of(*skeleton(model, 1), model)
    weight = state.get(f"{classifier}.weight")
    return NUM_CLASSES if weight is None else len(weight)  # what is missing is told when it is fit


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
