"""CSV manifests as listings: paths with labels, and splits, groups and boxes where given."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from jobs.data.files import content_of, image_of
from jobs.data.listing import Listing, SplitName
from jobs.manifest import Manifest, Row, read_manifest


def manifest_listing(file: Path, root: Path, *, multi_label: bool, given: bool) -> Listing:
    """List the rows of the manifest `file`, in its order; their images are below `root`.

    Classes are all labels that occur, sorted.  A row without a group is one of its own.  With
    `given`, the split is that of the rows.  Raises DataError naming line and column.
    """
    manifest = read_manifest(file, multi_label=multi_label)
    rows = manifest.rows
    class_names = tuple(sorted({label for row in rows for label in row.labels}))
    if len(class_names) < (1 if multi_label else 2):
        raise DataError(f"{len(class_names)} classes are too few", where=str(file))
    paths = [row.path for row in rows]
    columns = manifest.columns
    return Listing(
        class_names=class_names,
        ids=tuple(row.id for row in rows),
        labels=_labels(rows, class_names, multi_label),
        content=content_of(root, paths),
        image=image_of,
        where=str(file),
        groups=tuple(row.group or f"\0{row.id}" for row in rows) if "group" in columns else None,
        boxes=tuple(row.box for row in rows) if "box" in columns else None,
        given=_given(manifest) if given else None,
    )


def _labels(
    rows: tuple[Row, ...], class_names: tuple[str, ...], multi_label: bool
) -> npt.NDArray[np.int64]:
    number = {name: label for label, name in enumerate(class_names)}
    if not multi_label:
        return np.array([number[row.labels[0]] for row in rows], dtype=np.int64)
    labels = np.zeros((len(rows), len(class_names)), np.int64)
    for index, row in enumerate(rows):
        labels[index, [number[name] for name in row.labels]] = 1
    return labels


def _given(manifest: Manifest) -> tuple[SplitName, ...]:
    splits = tuple(cast(SplitName, row.split) for row in manifest.rows)
    missing = [name for name in ("train", "test") if name not in splits]
    if missing:
        raise DataError(
            f"no row of split {missing[0]}",
            where=str(manifest.path),
            fix="split: given needs train and test (val is optional); or use split: random",
        )
    return splits
