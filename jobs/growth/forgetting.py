"""What a network forgets of its source: how well its old classifier still does on its old images.

After the adaptation the source's own classifier is put back on the old layers as they are now; new
parts are left out, since old layers do not see them.  The images are those that the source's run
was tested on, less those that the target's training shows: none of them was ever learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ftd.errors import DataError
from ftd.job import Context
from jobs.data.batches import Loader
from jobs.data.duplicates import twins
from jobs.data.keyed import Indices
from jobs.data.prepare import Data
from jobs.descriptors.leakage import leaked
from jobs.growth.blocks import comparable
from jobs.growth.place import classifier_path
from jobs.layers import Treatment, numbered
from jobs.measure.evaluate import evaluate
from jobs.measure.predictions import tested_on
from jobs.measure.scoring import Scoring, named
from jobs.models.build import build
from jobs.models.description import Description
from jobs.models.kept import few, starting_weights
from jobs.models.network import Network
from jobs.params.model import ModelParams
from jobs.params.target import TargetParams
from jobs.sources import WeightsRun
from jobs.train.loop import Training


@dataclass(frozen=True)
class Source:
    """The images that the source was tested on, and how the network sees them.

    ``trained_on`` are rows of others, which may be trained on again.
    """

    model: ModelParams
    loader: Loader
    indices: Indices
    trained_on: Indices
    scoring: Scoring
    context: Context

    @classmethod
    def of(cls, model: ModelParams, wanted: TargetParams, data: Data, context: Context) -> Source:
        """The source of `model`, whose weights a run kept; `data` are its images.

        Raises DataError when that run was tested on none of them, learned other classes or sizes.
        """
        assert isinstance(model.weights, WeightsRun)
        called = model.weights.kept.called
        crop_size = wanted.crop_size or wanted.decode_size
        learned = Description.of_run(model.weights, context)
        if (learned.decode_size, learned.size) != (wanted.decode_size, crop_size):
            raise DataError(
                f"{called} learned images decoded to {learned.decode_size} pixels and cropped to "
                f"{learned.size}, not to {wanted.decode_size} and {crop_size}",
                where="forgetting.source",
                fix=f"Set decode_size: {learned.decode_size} and crop_size: {learned.size} there",
            )
        tested = np.isin(data.images.digests, tested_on(called, context))
        wanted_here = tested
        if not wanted.multi_label:
            wanted_here = tested & (data.listing.labels >= 0)  # of a class that is not left out
        indices = np.flatnonzero(wanted_here)
        if not len(indices):
            raise DataError(
                f"{called} was tested on none of these images",
                where="forgetting.source",
                fix="Give the images that it was trained for, as in its spec",
            )
        names = data.listing.class_names
        if set(names) != set(learned.class_names):
            raise DataError(
                f"{called} learned other classes ({few(learned.class_names)}) than these images "
                f"have ({few(names)})",
                where="forgetting.source",
                fix="Choose the classes as in its spec",
            )
        loader = Loader(data.images, crop_size, model.preprocessing, context.device)
        scoring = Scoring(len(names), wanted.multi_label, data.terciles)
        train = data.splits.train
        return cls(model, loader, indices, train[~tested[train]], scoring, context)

    def apart_from(self, training: Training) -> Source:
        """Without images to test on that `training` shows, and without images to train on again
        that its target is validated or tested on; the run's history says how many those are.

        Raises DataError when there is none left to test on.
        """
        ours, theirs, splits = self.loader.images, training.loader.images, training.splits
        shown = twins(ours, self.indices, splits.train, of=theirs).any
        held_out = leaked(theirs, splits.test, splits.val, ours, self.trained_on).rows
        self.context.note(
            "source beside the target",
            test_left_out=int(shown.sum()),
            train_left_out=len(held_out),
        )
        if shown.all():
            raise DataError(
                "the target's training shows every image that the source was tested on, or nearly "
                "the same: what is forgotten of them cannot be told",
                where="forgetting.source",
                fix="Leave forgetting out, or train on other images",
            )
        trained_on = np.setdiff1d(self.trained_on, held_out)
        return replace(self, indices=self.indices[~shown], trained_on=trained_on)

    def network(self) -> Network:
        """The network as it was, with its own classifier."""
        chosen = (Treatment.FT,) * len(numbered(self.model.name))
        names, seen = self.loader.images.listing.class_names, self.model.preprocessing
        return build(
            self.model.name,
            names,
            chosen,
            starting_weights(self.model, names, chosen, seen, self.context),
            init_seed=0,
            dropout_seed=0,
        ).to(self.context.device)

    def metrics(self, adapted: Network | None, pause: Callable[[], None]) -> Mapping[str, float]:
        """``source_before/...`` and ``source_after/...``; `adapted` is None after divergence."""
        labels = self.loader.images.listing.labels[self.indices]
        network = self.network()

        def measured() -> dict[str, float]:
            logits = evaluate(network, self.loader, self.indices, self.context.device, pause)
            if not np.isfinite(logits).all():
                return comparable(self.scoring.chance(labels))
            return comparable(self.scoring.metrics(logits, labels))

        found = named("source_before", measured())
        after = comparable(self.scoring.chance(labels))
        if adapted is not None:
            _take_over(network, adapted)
            after = measured()
        found |= named("source_after", after)
        return {**found, "data/num_source_test": float(len(self.indices))}


def _take_over(network: Network, adapted: Network) -> None:
    """Put the adapted tensors into `network`, but for its classifier."""
    own, theirs = network.state(), adapted.state()
    classifier = classifier_path(network)
    for name, tensor in own.items():
        if not name.startswith(f"{classifier}."):
            tensor.copy_(theirs[name])
