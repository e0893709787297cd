"""scikit-learn's digits: 1,797 grey images of 8x8 pixels, for tests and first tries."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ftd.errors import DataError
from jobs.data.listing import Listing

PACKAGE = "scikit-learn"


def digits_listing() -> Listing:
    """List the digits in the package's order; raises DataError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            f"package {PACKAGE} is not installed", fix=f"pip install {PACKAGE}"
        ) from None

    pixels, labels = load_digits(return_X_y=True)
    grey = (pixels.reshape(-1, 8, 8) * 255 // 16).astype(np.uint8)  # stored as 0 to 16
    return Listing(
        class_names=tuple("0123456789"),
        ids=tuple(f"{index:04d}" for index in range(len(grey))),
        labels=labels.astype(np.int64),
        content=lambda index: grey[index].tobytes(),
        image=lambda content: Image.frombytes("L", (8, 8), content),
        where=PACKAGE,
    )
