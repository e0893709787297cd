"""Twins of Ge and Yu 2017 (Borrowing treasures from the wealthy: selective joint fine-tuning)."""

from __future__ import annotations

from statistics import mean

from evidence import PerUnit, Row, at, by_replicate, claim, levels, minus

TOP1 = "test/top1"


def borrow(rows: list[Row]) -> None:
    """Borrowing beats not borrowing; images that look alike beat random ones, and all of them."""

    def of(arm: str) -> PerUnit:
        return by_replicate(rows, TOP1, at(borrowed=arm))

    told = ", ".join(f"{arm}: {mean(of(arm).values()):.3f}" for arm in levels(rows, "borrowed"))
    print(f"<!-- {TOP1}: {told} -->")
    for one, other in (
        ("random", "none"), ("all", "none"), ("low-level", "none"), ("deep", "none"),
        ("low-level", "random"), ("low-level", "all"), ("deep", "random"), ("deep", "low-level"),
    ):  # fmt: skip
        claim(f"{one} over {other}", minus(of(one), of(other)))


def hard_images(rows: list[Row]) -> None:
    """More neighbours for hard images help; and what of it is due to drawing them more often."""
    for number in levels(rows, "selection.neighbours"):
        here = [row for row in rows if row["selection.neighbours"] == number]
        of = {arm: by_replicate(here, TOP1, at(growth=arm)) for arm in levels(here, "growth")}
        told = ", ".join(f"{arm}: {mean(values.values()):.3f}" for arm, values in of.items())
        raised = by_replicate(here, "borrow/mean_level", at(growth="grown"))
        print(f"<!-- K0 {number} ({TOP1}): {told}; mean level {mean(raised.values()):.1f} -->")
        for one, other in (
            ("grown", "fixed"), ("oversampled", "fixed"), ("grown", "oversampled")
        ):  # fmt: skip
            claim(f"K0 {number}: {one} over {other}", minus(of[one], of[other]))
