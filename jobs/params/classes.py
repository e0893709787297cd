"""Parameters of the classes: merged, left out, drawn, made unequal."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftd.job import Params


class ClassesParams(Params):
    """Which classes the network tells apart, made from those of the dataset in this order:
    merged, chosen, drawn."""

    merge: dict[str, list[str]] = Field(
        default={},
        description="New class -> classes of the dataset that become it; the others stay.",
    )
    map: str | None = Field(
        default=None,
        description="CSV file with the columns class and becomes (fine and coarse labels), a line "
        "for every class of the dataset; instead of merge. Relative to the spec.",
    )
    only: list[str] | None = Field(default=None, description="Classes to keep (after merging).")
    drop: list[str] = Field(default=[], description="Classes to leave out (after merging).")
    num_classes: int | None = Field(
        default=None,
        ge=2,
        description="So many of them, drawn by the seed stream classes; those of a smaller number "
        "are among those of a larger one.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ClassesParams:
        if self.merge and self.map is not None:
            raise ValueError("give either merge or map")
        if self.only is not None and self.drop:
            raise ValueError("give either only or drop")
        old = [name for names in self.merge.values() for name in names]
        twice = next((name for name in old if old.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"class {twice} is merged into two classes")
        return self


class ImbalanceParams(Params):
    """A long tail of training images: n_k = n_max * ratio^(-k / (K - 1)), k = 0 ... K - 1.

    Which class is which k is drawn by the seed stream ``classes``.  The formula is that of Cui et
    al., Class-balanced loss based on effective number of samples, CVPR 2019.
    """

    ratio: float = Field(
        ge=1, description="Training images of the largest class over those of the smallest."
    )
    hold: Literal["total", "max"] = Field(
        default="total",
        description="What stays as without imbalance: total: the number of training images; max: "
        "that of the largest class, per_class.",
    )
