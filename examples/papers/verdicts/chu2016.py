"""Twins of Chu et al. 2016 (Best practices for fine-tuning visual classifiers to new domains)."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

from evidence import PerUnit, Row, at, by_replicate, claim, levels, minus
from scipy.stats import kendalltau

METRIC = "test/balanced_accuracy"
MEASURES = ("cosine", "mmd", "svm_accuracy", "cnn_accuracy")


def freeze_or_tune(rows: list[Row]) -> None:
    """Tune what is copied; copy all layers but the classifier; the more so the farther the target
    and the more its images."""
    distances, numbers = levels(rows, "distance"), levels(rows, "target.per_class")

    def of(treatment: str, distance: str, images: str | None = None) -> PerUnit:
        return by_replicate(
            rows, METRIC,
            lambda r: r["distance"] == distance and r["layers"].startswith(treatment)
            and images in (None, r["target.per_class"]),
        )  # fmt: skip

    def gain(distance: str, images: str, copied: str = "(1-7)") -> PerUnit:
        """Of tuning over freezing the copied layers."""
        return minus(of(f"FT{copied}", distance, images), of(f"F{copied}", distance, images))

    for distance in distances:
        for images in numbers:
            claim(f"{distance}, {images} per class, 7 copied: tuned over frozen",
                  gain(distance, images))  # fmt: skip
        claim(f"{distance}, all: tuned over frozen",
              minus(of("FT(", distance), of("F(", distance)))  # fmt: skip
    for distance in distances:
        for more, fewer in ((7, 5), (5, 3)):
            claim(f"{distance}, tuned: copying {more} layers over copying {fewer}",
                  minus(of(f"FT(1-{more})", distance), of(f"FT(1-{fewer})", distance)))  # fmt: skip
    near, *farther = distances
    fewest, *_, most = numbers
    for images in numbers:
        for distance in farther:
            claim(f"{images} per class: tuning gains more {distance} than {near}",
                  minus(gain(distance, images), gain(near, images)))  # fmt: skip
    for distance in distances:
        claim(f"{distance}: tuning gains more with {most} per class than with {fewest}",
              minus(gain(distance, most), gain(distance, fewest)))  # fmt: skip


def real_images(rows: list[Row]) -> None:
    """The far cell on real images: freeze against tune."""
    for images in levels(rows, "target.per_class"):
        here = [row for row in rows if row["target.per_class"] == images]
        tuned, frozen = (
            by_replicate([row for row in here if row["layers"].startswith(how)], "test/auroc")
            for how in ("FT(", "F(")
        )
        claim(f"{images} per class: tuned over frozen (AUROC)", minus(tuned, frozen))


def distances(rows: list[Row]) -> None:
    """Two measures order the targets of a source alike: Kendall's tau, mean over sources."""
    sources = levels(rows, "source")
    for source in sources:
        for measure in MEASURES:
            told = ", ".join(
                f"{target}: {mean(values.values()):.3f}"
                for target in levels(rows, "target")
                if (values := by_replicate(rows, f"distance/{measure}",
                                           at(source=source, target=target)))
            )  # fmt: skip
            print(f"<!-- {source}, {measure}: {told} -->")
    for one, other in combinations(MEASURES, 2):
        claim(f"{one} and {other} agree (tau)", _agreement(rows, sources, one, other))


def _agreement(rows: list[Row], sources: list[str], one: str, other: str) -> dict[str, float]:
    """Replicate -> mean over sources of tau over its other targets."""
    found: dict[str, list[float]] = {}
    for replicate in levels(rows, "replicate"):
        for source in sources:
            here = [
                row for row in rows
                if (row["replicate"], row["source"]) == (replicate, source)
                and row["target"] != source
            ]  # fmt: skip
            values = ([float(row[f"distance/{name}"]) for row in here] for name in (one, other))
            found.setdefault(replicate, []).append(float(kendalltau(*values).statistic))
    return {replicate: mean(taus) for replicate, taus in found.items()}
