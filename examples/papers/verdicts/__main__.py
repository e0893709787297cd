"""The papers' claims and the twins: ``python examples/papers/verdicts`` in their home."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping

from azizpour2016 import (
    classes,
    early_wide_deep,
    early_wide_deep_retrieval,
    layers,
    retrieval,
)
from chu2016 import distances, freeze_or_tune, real_images
from evidence import Row, rows_of
from ge2017 import borrow, hard_images
from li2019 import changes, imbalance, learning_rate
from wang2017 import gamma, grow, grow_large, grow_or_wide
from wang2017 import real_images as grow_real_images

TWINS: Mapping[str, Callable[[list[Row]], None]] = {
    "twin-1-learning-rate": learning_rate,
    "twin-2-classes": classes,
    "twin-3-imbalance": imbalance,
    "twin-4-changes": changes,
    "twin-5-freeze-or-tune": freeze_or_tune,
    "twin-6-real-images": real_images,
    "twin-7-distances": distances,
    "twin-8-layers": layers,
    "twin-8-retrieval": retrieval,
    "twin-9-early-wide-deep": early_wide_deep,
    "twin-9-retrieval": early_wide_deep_retrieval,
    "twin-10-grow": grow,
    "twin-10-gamma": gamma,
    "twin-10-grow-large": grow_large,
    "twin-11-grow-real-images": grow_real_images,
    "twin-12-grow-or-wide": grow_or_wide,
    "twin-13-borrow": borrow,
    "twin-13-borrow-pretrained": borrow,
    "twin-14-hard-images": hard_images,
}


def main() -> Iterator[str]:
    """The names of the twins that were found, after their tables were printed."""
    for name, tell in TWINS.items():
        rows = rows_of(name)
        if rows:
            print(
                f"\n{name}: {len(rows)} places\n\n| claim | difference | verdict |\n|---|---|---|"
            )
            tell(rows)
            yield name


if __name__ == "__main__":
    sys.exit(0 if list(main()) else "no twin is done in this home")
