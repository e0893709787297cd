"""torchvision's classification datasets by name, from a root that already holds their files.

Nothing is downloaded: what is there is an input of the run, and its key.  torchvision checks the
published digests of those files that are pickles (CIFAR) before it reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ftd.errors import DataError
from jobs.data.listing import Listing, SplitName

TRAIN_FLAG: Mapping[SplitName, Mapping[str, Any]] = {
    "train": {"train": True}, "test": {"train": False},
}  # fmt: skip
TRAIN_TEST: Mapping[SplitName, Mapping[str, Any]] = {
    "train": {"split": "train"}, "test": {"split": "test"},
}  # fmt: skip
THREE: Mapping[SplitName, Mapping[str, Any]] = {**TRAIN_TEST, "val": {"split": "val"}}


@dataclass(frozen=True)
class _Source:
    """How a dataset's sets are asked for, and which attribute holds their labels."""

    sets: Mapping[SplitName, Mapping[str, Any]]
    labels: str = "targets"
    names: tuple[str, ...] = field(default=())  # of the classes, where torchvision has none


DIGITS = tuple("0123456789")
SOURCES: Mapping[str, _Source] = {
    "CIFAR10": _Source(TRAIN_FLAG),
    "CIFAR100": _Source(TRAIN_FLAG),
    "Caltech101": _Source({"train": {}}, "y"),
    "DTD": _Source(THREE, "_labels"),
    "EuroSAT": _Source({"train": {}}),
    "FGVCAircraft": _Source(THREE, "_labels"),
    "FashionMNIST": _Source(TRAIN_FLAG),
    "Flowers102": _Source(THREE, "_labels"),
    "Food101": _Source(TRAIN_TEST, "_labels"),
    "GTSRB": _Source(TRAIN_TEST, "_samples"),
    "KMNIST": _Source(TRAIN_FLAG),
    "MNIST": _Source(TRAIN_FLAG),
    "OxfordIIITPet": _Source(
        {"train": {"split": "trainval"}, "test": {"split": "test"}}, "_labels"
    ),
    "STL10": _Source(TRAIN_TEST, "labels"),
    "SVHN": _Source(TRAIN_TEST, "labels", DIGITS),
    "StanfordCars": _Source(TRAIN_TEST, "_samples"),
    "USPS": _Source(TRAIN_FLAG, names=DIGITS),
}


def torchvision_listing(name: str, root: Path, *, given: bool) -> Listing:
    """List all sets of torchvision's dataset `name` below `root`: ``train/0``, ``train/1``, ...

    With `given`, the split is the dataset's own.  Raises DataError when its files are not there.
    """
    source = SOURCES[name]
    ids: list[str] = []
    splits: list[SplitName] = []
    labels: list[int] = []
    places: list[tuple[Any, int]] = []
    class_names: tuple[str, ...] = ()
    for split, arguments in source.sets.items():
        dataset = _opened(name, root, arguments)
        found = [_label(value) for value in getattr(dataset, source.labels)]
        class_names = class_names or _class_names(dataset, source, found)
        ids += [f"{split}/{row}" for row in range(len(found))]
        splits += [split] * len(found)
        labels += found
        places += [(dataset, row) for row in range(len(found))]

    def content(index: int) -> bytes:
        dataset, row = places[index]
        return _packed(dataset[row][0])

    return Listing(
        class_names=class_names,
        ids=tuple(ids),
        labels=np.array(labels, dtype=np.int64),
        content=content,
        image=_unpacked,
        where=str(root),
        given=tuple(splits) if given else None,
    )


def _opened(name: str, root: Path, arguments: Mapping[str, Any]) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, name)(str(root), download=False, **arguments)
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"cannot open torchvision's {name} ({reason})",
            where=str(root),
            fix=f"Fetch it beforehand: torchvision.datasets.{name}({str(root)!r}, download=True)",
        ) from error


def _label(value: Any) -> int:
    """A label, or that of a (path, label) pair."""
    return int(value[1]) if isinstance(value, tuple) else int(value)


def _class_names(dataset: Any, source: _Source, labels: list[int]) -> tuple[str, ...]:
    names = source.names or getattr(dataset, "classes", None) or getattr(dataset, "categories", ())
    if names:
        return tuple(map(str, names))
    width = len(str(max(labels)))
    return tuple(f"{label:0{width}}" for label in range(max(labels) + 1))


def _packed(image: Image.Image) -> bytes:
    """The pixels behind a line that says how to read them."""
    image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    head = json.dumps({"mode": image.mode, "size": image.size})
    return head.encode() + b"\n" + image.tobytes()


def _unpacked(content: bytes) -> Image.Image:
    head, _, pixels = content.partition(b"\n")
    facts = json.loads(head)
    return Image.frombytes(facts["mode"], tuple(facts["size"]), pixels)
