"""Image folders: one subfolder per class, or train, val and test folders of that kind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ftd.errors import DataError
from ftd.printable import is_utf8, printable
from jobs.data.files import SUFFIXES, content_of, image_of, images_below
from jobs.data.listing import SPLITS, Listing, SplitName


def folder_listing(root: Path, *, given: bool) -> Listing:
    """List `root`'s images, sorted by path; with `given`, those of its train, val and test folders.

    Classes are all class folders by name, sorted, whether they hold images or not, so that an
    empty one does not shift the labels of the others.  Hidden files and other file types are left
    out.  Raises DataError when there is nothing to list.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}", fix="Check target.folder")
    tops: dict[SplitName, Path] = {"train": root}
    if given:
        tops = {name: root / name for name in SPLITS if (root / name).is_dir()}
        missing = [name for name in ("train", "test") if name not in tops]
        if missing:
            raise DataError(
                f"{root} has no folder {missing[0]}",
                fix="split: given needs folders train and test (val is optional)",
            )
    class_names = tuple(sorted({name for top in tops.values() for name in _subfolders(top)}))
    if len(class_names) < 2:
        raise DataError(
            f"{root} has {len(class_names)} class folders",
            fix="Put the images of each class into a subfolder of its own, at least two",
        )
    label_of = {name: label for label, name in enumerate(class_names)}
    ids: list[str] = []
    labels: list[int] = []
    splits: list[SplitName] = []
    for split, top in tops.items():
        for name in _subfolders(top):
            paths = sorted(images_below(top / name))
            ids += [os.path.relpath(path, root) for path in paths]
            labels += [label_of[name]] * len(paths)
            splits += [split] * len(paths)
    foreign = next((name for name in (*class_names, *ids) if not is_utf8(name)), None)
    if foreign is not None:
        raise DataError(
            f"the name of '{printable(foreign)}' in {root} is not UTF-8", fix="Rename it"
        )
    if not ids:
        raise DataError(f"no images in {root}", fix=f"Known file types: {' '.join(SUFFIXES)}")
    return Listing(
        class_names=class_names,
        ids=tuple(ids),
        labels=np.array(labels, dtype=np.int64),
        content=content_of(root, ids),
        image=image_of,
        where=str(root),
        neighbourhoods=tuple(class_names[label] for label in labels),
        given=tuple(splits) if given else None,
    )


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
