"""scikit-learn's digits: 1,797 grey images of 8x8 pixels, for tests and first tries.

Read from the package's file: importing scikit-learn takes longer than a short run.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
from PIL import Image

from ftd.errors import DataError
from jobs.data.listing import Listing

PACKAGE = "scikit-learn"
FILE = "sklearn/datasets/data/digits.csv.gz"  # 64 pixels and the label


def digits_listing() -> Listing:
    """List the digits in the package's order; raises DataError without scikit-learn."""
    try:
        path = str(distribution(PACKAGE).locate_file(FILE))
        table = np.loadtxt(path, delimiter=",", dtype=np.float64)
    except PackageNotFoundError:
        raise DataError(
            f"package {PACKAGE} is not installed", fix=f"pip install {PACKAGE}"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"package {PACKAGE} has no usable {FILE} ({error})", fix=f"Install {PACKAGE} again"
        ) from error
    grey = (table[:, :64].reshape(-1, 8, 8) * 255 // 16).astype(np.uint8)  # stored as 0 to 16
    return Listing(
        class_names=tuple("0123456789"),
        ids=tuple(f"{index:04d}" for index in range(len(grey))),
        labels=table[:, 64].astype(np.int64),
        content=lambda index: grey[index].tobytes(),
        image=lambda content: Image.frombytes("L", (8, 8), content),
        where=PACKAGE,
    )
