"""torchvision's classification datasets by name, from a root that already holds their files.

Nothing is downloaded: what is there is an input of the run, and its key.  torchvision checks the
published digests of those files that are pickles (CIFAR) before it reads them.  Image files are
read here, as only some formats are safe (see :mod:`jobs.data.files`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ftd.errors import DataError
from jobs.data.files import content_of, image_of
from jobs.data.listing import Listing, SplitName

TRAIN_FLAG: Mapping[SplitName, Mapping[str, Any]] = {
    "train": {"train": True}, "test": {"train": False},
}  # fmt: skip
TRAIN_TEST: Mapping[SplitName, Mapping[str, Any]] = {
    "train": {"split": "train"}, "test": {"split": "test"},
}  # fmt: skip
THREE: Mapping[SplitName, Mapping[str, Any]] = {
    "train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"},
}  # fmt: skip


@dataclass(frozen=True)
class _Source:
    """How a dataset's sets are asked for, and which attributes hold their labels and files.

    A label is a number, or the last of a pair; a file a path, or the first of a pair.
    """

    sets: Mapping[SplitName, Mapping[str, Any]]
    labels: str = "targets"
    files: str = ""  # of a dataset of image files
    names: tuple[str, ...] = field(default=())  # of the classes, where torchvision has none


DIGITS = tuple("0123456789")
SOURCES: Mapping[str, _Source] = {
    "CIFAR10": _Source(TRAIN_FLAG),
    "CIFAR100": _Source(TRAIN_FLAG),
    "Caltech101": _Source({"train": {}}, "y", "index"),
    "DTD": _Source(THREE, "_labels", "_image_files"),
    "EuroSAT": _Source({"train": {}}, files="samples"),
    "FGVCAircraft": _Source(THREE, "_labels", "_image_files"),
    "FashionMNIST": _Source(TRAIN_FLAG),
    "Flowers102": _Source(THREE, "_labels", "_image_files"),
    "Food101": _Source(TRAIN_TEST, "_labels", "_image_files"),
    "GTSRB": _Source(TRAIN_TEST, "_samples", "_samples"),
    "KMNIST": _Source(TRAIN_FLAG),
    "MNIST": _Source(TRAIN_FLAG),
    "OxfordIIITPet": _Source(
        {"train": {"split": "trainval"}, "test": {"split": "test"}}, "_labels", "_images"
    ),
    "STL10": _Source(TRAIN_TEST, "labels"),
    "SVHN": _Source(TRAIN_TEST, "labels", names=DIGITS),
    "StanfordCars": _Source(TRAIN_TEST, "_samples", "_samples"),
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
    files: list[str] = []
    class_names: tuple[str, ...] = ()
    for split, arguments in source.sets.items():
        dataset = _opened(name, root, arguments)
        found = [_label(value) for value in getattr(dataset, source.labels)]
        class_names = class_names or _class_names(dataset, source, found)
        ids += [f"{split}/{row}" for row in range(len(found))]
        splits += [split] * len(found)
        labels += found
        places += [(dataset, row) for row in range(len(found))]
        files += _files(dataset, source)

    def content(index: int) -> bytes:
        dataset, row = places[index]
        return _packed(dataset[row][0])

    return Listing(
        class_names=class_names,
        ids=tuple(ids),
        labels=np.array(labels, dtype=np.int64),
        content=content_of(root, files) if files else content,
        image=image_of if files else _unpacked,
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


def _files(dataset: Any, source: _Source) -> list[str]:
    """Where the images are, if they are files; Caltech101 has only their numbers."""
    if source.files == "index":
        return [
            os.path.join(
                dataset.root,
                "101_ObjectCategories",
                dataset.categories[label],
                f"image_{n:04d}.jpg",
            )
            for label, n in zip(dataset.y, dataset.index, strict=True)
        ]
    found = getattr(dataset, source.files) if source.files else ()
    return [os.fspath(file[0] if isinstance(file, tuple) else file) for file in found]


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
