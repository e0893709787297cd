"""From the target's parameters to images ready for training: listed, decoded, split, chosen."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ftd.errors import DataError
from ftd.job import Checkpoint, Context, Input, Writer
from jobs.data.classes import with_classes
from jobs.data.datasets import listing_of
from jobs.data.duplicates import Report, without_twins
from jobs.data.images import Images, decoded
from jobs.data.keyed import Indices
from jobs.data.listing import Listing
from jobs.data.quotas import tail_ranks
from jobs.data.splits import Splits, split
from jobs.data.subset import subset
from jobs.params.target import TargetParams


@dataclass(frozen=True)
class Data:
    """A target's decoded images, and who trains (the chosen subset), validates and tests.

    Under imbalance ``terciles`` are the classes with the most, middling and fewest training images.
    ``metrics`` says how many images and labels are used (``data/...``).
    """

    images: Images
    splits: Splits
    terciles: Sequence[Indices]
    metrics: Mapping[str, float]

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
    seeds: Mapping[str, int] | None = None,
    known_as: str = "data",
) -> Data:
    """The images of the resolved `target`, read from `source`, decoded unless the store has them.

    While decoding the run can be left as it stands at `checkpoint` (None: not yet begun), whose
    files are `checkpoint_files`.  `seeds` draw in place of the run's.  In the run's history they
    are `known_as`.  Raises DataError for images that are missing or unreadable.
    """
    step = 0 if checkpoint is None else checkpoint.step

    def progress(done: int, total: int) -> None:
        context.progress(step, max(step, 1), decoding=f"{done}/{total}")
        context.checkpoint(step, lambda: as_it_stands(checkpoint, checkpoint_files))

    seeds = context.seeds if seeds is None else seeds
    listing, members = with_classes(listing_of(target), target.classes, seeds["classes"])
    images = decoded(
        listing,
        context.verified(source),
        target.decode_size,
        interpolation,
        store=context.store,
        threads=context.threads,
        progress=progress,
        wanted=members,
        skip_unreadable=target.corrupt == "skip",
    )
    members = _readable(images, members, context, known_as)
    splits = split(listing, images.digests, target, seeds["split"], members)
    if target.duplicates == "drop_from_train":
        splits = without_twins(images, splits)
    train = subset(listing, images.digests, splits.train, target, seeds["subset"], seeds["classes"])
    splits = replace(splits, train=train)
    report = Report.of(images, splits)
    _describe(images, splits, members, report, context, known_as)
    sizes = {f"data/num_{name}": float(len(i)) for name, i in splits.by_name().items()}
    terciles: Sequence[Indices] = ()
    if target.imbalance is not None and len(listing.class_names) > 2:
        ranks = tail_ranks(listing.class_names, seeds["classes"])
        terciles = np.array_split(np.argsort(ranks), 3)
    return Data(images, splits, terciles, {**sizes, **report.metrics()})


def _readable(images: Images, members: Indices, context: Context, known_as: str) -> Indices:
    """The samples that could be decoded; the others are recorded."""
    wanted = set(members.tolist())
    skipped = {index: why for index, why in images.unreadable.items() if index in wanted}
    if not skipped:
        return members
    if len(skipped) == len(members):
        raise DataError("no image can be read", where=images.listing.where)
    by_id = {images.listing.ids[index]: why for index, why in skipped.items()}
    file = "skipped.json" if known_as == "data" else f"skipped-{known_as.replace(' ', '-')}.json"
    context.note("skipped", num_images=len(by_id), recorded_in=file)

    def write(path: Path) -> None:
        path.write_text(json.dumps(by_id))

    context.artifact(file, write)
    return np.setdiff1d(members, np.array(list(skipped), np.int64))


def as_it_stands(checkpoint: Checkpoint | None, files: tuple[str, ...]) -> Mapping[str, Writer]:
    """The writers of a checkpoint equal to `checkpoint`, for leaving before it came further."""
    if checkpoint is None or checkpoint.step == 0:
        return {}
    return {name: partial(shutil.copyfile, checkpoint.path(name)) for name in files}


def _describe(
    images: Images,
    splits: Splits,
    members: Indices,
    report: Report,
    context: Context,
    known_as: str,
) -> None:
    """Put the sets' sizes per class, what they share, and a digest of all images' content, into
    the history."""
    listing = images.listing
    counts = {
        name: listing.images_per_class(indices).tolist()
        for name, indices in splits.by_name().items()
    }
    digests = np.sort(images.digests[members])
    context.note(
        known_as,
        class_names=list(listing.class_names),
        images_per_class=counts,
        content_sha256=hashlib.sha256(digests.tobytes()).hexdigest(),
        duplicates=report.as_note(),
    )
