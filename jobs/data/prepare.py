"""From the target's parameters to images ready for training: listed, decoded, split, chosen."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ftd.inputs import fingerprint
from ftd.job import Checkpoint, Context, Input, Writer
from jobs.data.datasets import listing_of
from jobs.data.images import Images, decoded
from jobs.data.listing import Listing
from jobs.data.splits import Splits, split
from jobs.data.subset import subset
from jobs.params.target import TargetParams


@dataclass(frozen=True)
class Data:
    """A target's decoded images, and who trains (the chosen subset), validates and tests."""

    images: Images
    splits: Splits

    @property
    def listing(self) -> Listing:
        """What the images are."""
        return self.images.listing


def prepared(
    target: TargetParams,
    source: Input,
    interpolation: str,
    context: Context,
    checkpoint: Checkpoint | None,
    checkpoint_files: tuple[str, ...],
) -> Data:
    """The images of the resolved `target`, read from `source`, decoded unless the store has them.

    While decoding the run can be left as it stands at `checkpoint` (None: not yet begun), whose
    files are `checkpoint_files`.  Raises DataError for images that are missing or unreadable.
    """
    step = 0 if checkpoint is None else checkpoint.step

    def unchanged() -> Mapping[str, Writer]:
        if checkpoint is None or step == 0:
            return {}
        return {name: partial(shutil.copyfile, checkpoint.path(name)) for name in checkpoint_files}

    def progress(done: int, total: int) -> None:
        context.progress(step, max(step, 1), decoding=f"{done}/{total}")
        context.checkpoint(step, unchanged)

    listing = listing_of(target)
    images = decoded(
        listing,
        fingerprint(source),
        target.decode_size,
        interpolation,
        store=context.store,
        threads=context.threads,
        progress=progress,
    )
    whole = split(listing, images.digests, target, context.seeds["split"])
    train = subset(listing, images.digests, whole.train, target.per_class, context.seeds["subset"])
    splits = replace(whole, train=train)
    _describe(images, splits, context)
    return Data(images, splits)


def _describe(images: Images, splits: Splits, context: Context) -> None:
    """Put the sets' sizes per class, and a digest of all images' content, into the history."""
    listing = images.listing
    num_classes = len(listing.class_names)
    counts = {
        name: np.bincount(listing.labels[indices], minlength=num_classes).tolist()
        for name, indices in splits.by_name().items()
    }
    context.note(
        "data",
        class_names=list(listing.class_names),
        images_per_class=counts,
        content_sha256=hashlib.sha256(np.sort(images.digests).tobytes()).hexdigest(),
    )
