"""ELPV: 2,624 electroluminescence images of solar cells with the probability of a defect.

Deitsch et al., Automatic classification of defective photovoltaic module cells in
electroluminescence images, Solar Energy 185 (2019).  Read from the installed package's files; its
code is not imported.
"""

from __future__ import annotations

import importlib.metadata
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ftd.errors import DataError
from jobs.data.listing import Listing

PACKAGE = "elpv-dataset"
CLASS_NAMES = ("defective", "functional")


def elpv_listing(*, threshold: float, drop_uncertain: bool) -> Listing:
    """List the cells by file id; the neighbourhood of a cell is its type (mono, poly).

    A cell is defective when its probability (0, 1/3, 2/3 or 1) exceeds `threshold`; with
    `drop_uncertain` only cells with probability 0 or 1 are listed.  Raises DataError when the
    package is missing or damaged.
    """
    root = _data_folder()
    try:
        rows = map(str.split, sorted((root / "labels.csv").read_text().splitlines()))
        cells = [(path, float(probability), kind) for path, probability, kind in rows]
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read the labels ({error})",
            where=str(root / "labels.csv"),
            fix=f"pip install --force-reinstall {PACKAGE}",
        ) from error
    if drop_uncertain:
        cells = [cell for cell in cells if cell[1] in (0.0, 1.0)]
    ids = tuple(path for path, _, _ in cells)
    return Listing(
        class_names=CLASS_NAMES,
        ids=ids,
        labels=np.array([0 if p > threshold else 1 for _, p, _ in cells], dtype=np.int64),
        content=lambda index: (root / ids[index]).read_bytes(),
        image=lambda content: Image.open(io.BytesIO(content)),
        where=str(root),
        neighbourhoods=tuple(kind for _, _, kind in cells),
    )


def _data_folder() -> Path:
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            f"package {PACKAGE} is not installed", fix=f"pip install {PACKAGE}"
        ) from None
    return Path(str(distribution.locate_file("elpv_dataset/data")))
