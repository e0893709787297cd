"""Hugging Face image datasets from a local folder (as ``save_to_disk`` writes them)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from jobs.data.files import image_of
from jobs.data.listing import Listing, SplitName
from jobs.params.target import HuggingFaceParams
from jobs.targets import hf_splits

SPLITS: dict[str, SplitName] = {
    "train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test",
}  # fmt: skip


def huggingface_listing(
    root: Path, columns: HuggingFaceParams, *, multi_label: bool, given: bool
) -> Listing:
    """List the samples of all splits in `root`, by split and row: ``train/0``, ``train/1``, ...

    Only what the folder holds is read, and no code of it: images must be stored inside the tables.
    With `given`, the split is the dataset's own.  Raises DataError naming what is missing.
    """
    tables = _tables(root)
    features = next(iter(tables.values())).features
    class_names = _class_names(root, features, columns, multi_label)
    ids: list[str] = []
    splits: list[SplitName] = []
    labels: list[Any] = []
    places: list[tuple[Any, int]] = []
    for name, table in tables.items():
        ids += [f"{name}/{row}" for row in range(len(table))]
        splits += [SPLITS.get(name, "train")] * len(table)
        labels += table.with_format("python")[columns.label][:]
        images = _undecoded(table, columns)
        places += [(images, row) for row in range(len(table))]

    def content(index: int) -> bytes:
        images, row = places[index]
        found = images[row][columns.image]["bytes"]
        if found is None:
            raise ValueError("not stored inside the table")
        return bytes(found)

    return Listing(
        class_names=class_names,
        ids=tuple(ids),
        labels=_labels(root, labels, ids, len(class_names), multi_label),
        content=content,
        image=image_of,
        where=str(root),
        given=tuple(splits) if given else None,
    )


def _tables(root: Path) -> dict[str, Any]:
    try:
        import datasets  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DataError(
            "package datasets is not installed", where="target.dataset", fix="pip install datasets"
        ) from None
    try:
        if not hf_splits(root):
            return {"train": datasets.Dataset.load_from_disk(str(root))}
        return dict(datasets.DatasetDict.load_from_disk(str(root)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"no dataset as save_to_disk writes it ({error})", where=str(root), fix="Check the path"
        ) from error


def _class_names(
    root: Path, features: Any, columns: HuggingFaceParams, multi_label: bool
) -> tuple[str, ...]:
    for parameter, name in (("image", columns.image), ("label", columns.label)):
        if name not in features:
            raise DataError(
                f"{root} has no column '{name}'",
                where=f"target.hf.{parameter}",
                fix=f"Columns: {', '.join(features)}",
            )
    feature = features[columns.label]
    inner = getattr(feature, "feature", feature) if multi_label else feature
    names = getattr(inner, "names", None)
    if names is None:
        wanted = "a list of ClassLabel" if multi_label else "a ClassLabel"
        raise DataError(
            f"column '{columns.label}' of {root} is {feature}, not {wanted}",
            where="target.hf.label",
            fix="Cast it with datasets' cast_column and save it again",
        )
    return tuple(str(name) for name in names)


def _undecoded(table: Any, columns: HuggingFaceParams) -> Any:
    from datasets import Image

    if not isinstance(table.features[columns.image], Image):
        raise DataError(f"column '{columns.image}' holds no images", where="target.hf.image")
    return table.select_columns([columns.image]).cast_column(columns.image, Image(decode=False))


def _labels(
    root: Path, labels: list[Any], ids: list[str], num_classes: int, multi_label: bool
) -> npt.NDArray[np.int64]:
    if multi_label:
        found = np.zeros((len(labels), num_classes), np.int64)
        for index, several in enumerate(labels):
            found[index, several] = 1
        return found
    for name, label in zip(ids, labels, strict=True):
        if label is None or not 0 <= label < num_classes:  # -1 stands for a hidden test label
            raise DataError(f"{name} has no label", where=str(root), fix="Leave that split out")
    return np.array(labels, dtype=np.int64)
