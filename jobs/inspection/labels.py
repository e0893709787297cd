"""``python -P -m jobs.inspection.labels``: how many labelled images a target trains on, per class.

A process of its own, for commands that have no torch.  Standard input holds a resolved target as
JSON; the answer is one JSON object: ``class_names``, ``available`` and ``train`` (images per class
in the dataset and in the training set), or why it is ``refused`` and what to do (``fix``).  No
image is decoded.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from ftd.answers import answers
from ftd.errors import InputError
from jobs.data.classes import with_classes
from jobs.data.datasets import listing_of
from jobs.data.keyed import splitmix64
from jobs.data.splits import split
from jobs.data.subset import subset
from jobs.params.target import TargetParams


def counts(target: TargetParams, seed: int = 0) -> dict[str, Any]:
    """Images per class of the resolved `target`.

    Who trains depends on seeds and content, how many do not; where whole groups or blocks of
    images stay together, about so many.
    """
    listing, members = with_classes(listing_of(target), target.classes, seed)
    digests = splitmix64(np.arange(len(listing), dtype=np.uint64))  # as good as those of content
    train = split(listing, digests, target, seed, members).train
    train = subset(listing, digests, train, target, seed, seed)
    return {
        "class_names": list(listing.class_names),
        "available": listing.images_per_class(members).tolist(),
        "train": listing.images_per_class(train).tolist(),
    }


def main() -> int:
    """Answer one request."""
    channel = answers()
    try:
        found = counts(TargetParams.model_validate(json.load(sys.stdin)))
    except InputError as error:
        found = {"refused": str(error.what), "fix": error.fix}
    print(json.dumps(found), file=channel, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
