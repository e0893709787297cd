"""A frozen beginning is computed once: training begins behind it, on features of the images.

It is so wherever it can be, whether the store has them already or not: a run is the same either
way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftd.job import Checkpoint
from jobs.data.keyed import Indices
from jobs.data.prepare import as_it_stands
from jobs.features.extract import Features, features
from jobs.features.prefix import MIRRORED, PART, FeatureLoader, PrefixSight
from jobs.features.views import ORIGINAL, View
from jobs.models.prefix import frozen_prefix
from jobs.params.augment import AugmentParams
from jobs.train.loop import Training
from jobs.train.state import FILES, TrainingState

# What is said about an image takes at most so many times the bytes of its pixels.
MOST_TIMES_PIXELS = 4
_BYTES = 4  # of a number
# Where so much of a listing is looked at, all of it is: runs on other samples of it share that.
MUCH = 1 / 4


def behind_frozen_layers(
    training: Training, state: TrainingState, checkpoint: Checkpoint | None
) -> Training:
    """The same training on what the frozen beginning says; `state` is given the rest to train.

    `training` itself, where there is no such beginning or it says too much, where images look
    different each time, or where few of them are looked at.  The run can be left meanwhile, as it
    stands at `checkpoint`.
    """
    if not (_looks_are_fixed(training) and _looks_at_all(training)):
        return training
    loader, splits, context = training.loader, training.splits, training.context
    most_values = MOST_TIMES_PIXELS * 3 * loader.crop_size**2 // _BYTES
    prefix = frozen_prefix(state.network, loader.crop_size, most_values)
    if prefix is None:
        return training
    sight = PrefixSight(prefix, loader.preprocessing)
    step = 0 if checkpoint is None else checkpoint.step

    def leave(done: int, total: int) -> None:
        context.progress(step, training.num_steps, features=f"{done}/{total}")
        context.checkpoint(step, lambda: as_it_stands(checkpoint, FILES))

    def seen(wanted: Indices, view: View) -> Features:
        return features(
            sight,
            loader.images,
            loader.crop_size,
            [PART[0]],
            [PART[1]],
            context,
            wanted=wanted,
            progress=leave,
            views=[view],
            alone=len(wanted) < MUCH * len(loader.images.listing),
        )

    whole = seen(np.concatenate([*splits.by_name().values()]), ORIGINAL)
    flipped = seen(splits.train, MIRRORED) if training.augmentation.flip else None
    state.network = prefix.rest
    context.note("frozen_prefix", up_to=prefix.path, shape=list(prefix.shape))
    loader = FeatureLoader(loader, context.device, prefix.shape, whole, flipped)
    return replace(training, loader=loader)


def _looks_are_fixed(training: Training) -> bool:
    """Whether an image is the same to frozen layers each time, but for being mirrored."""
    augmentation = training.augmentation
    moves = augmentation.random_crop and augmentation.decode_size > augmentation.crop_size
    drops = training.params.frozen_dropout == "on"
    once = training.params.test_views == 1
    return once and not moves and not drops and augmentation.more == AugmentParams()


def _looks_at_all(training: Training) -> bool:
    """Whether training looks at its images as often as their features would take."""
    num_views = 2 if training.augmentation.flip else 1
    return training.num_steps >= num_views * training.order.steps_per_epoch
