"""The papers' claims and the twins: ``python examples/papers/verdicts.py`` in their home.

A claim is a difference that should be positive.  It is supported when its 95 % interval (Student's
t; the unit is the replicate, with a source network, a split and a subset of its own) lies above 0,
contradicted when below, else undecided.  Intervals are not corrected for their number.
"""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from statistics import mean

from ftd.stats.spread import interval, spread

Row = Mapping[str, str]


def rows_of(experiment: str) -> list[Row]:
    """Measured places of an experiment, of tuned ones the chosen candidate's; none if not there."""
    done = subprocess.run(["ftd", "export", experiment], capture_output=True, text=True)
    found = list(csv.DictReader(io.StringIO(done.stdout))) if done.returncode == 0 else []
    return [row for row in found if row["state"] == "done" and row.get("chosen") != "False"]


def claim(text: str, per_unit: Mapping[str, float], unit: str = "") -> None:
    """Print a claim's difference, interval, number of units and verdict."""
    found = spread(list(per_unit.values()))
    bounds = interval(found)
    if bounds is None:
        print(f"| {text} | {len(per_unit)} units | undecided |")
        return
    verdict = "supported" if bounds.low > 0 else "contradicted" if bounds.high < 0 else "undecided"
    told = f"{found.mean:+.3f}{unit} ({bounds.low:+.3f} to {bounds.high:+.3f}), n = {len(per_unit)}"
    print(f"| {text} | {told} | {verdict} |")


def by_replicate(
    rows: list[Row], metric: str, keep: Callable[[Row], bool] = lambda row: True
) -> dict[str, float]:
    """Replicate -> mean of the metric over the rows that are kept."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if keep(row):
            found.setdefault(row["replicate"], []).append(float(row[metric]))
    return {replicate: mean(values) for replicate, values in found.items()}


def minus(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Differences of the replicates that both have."""
    return {key: one[key] - other[key] for key in one if key in other}


def at(**wanted: str) -> Callable[[Row], bool]:
    """Rows with these factors; ``__`` stands for the dot of a name."""
    names = {name.replace("__", "."): value for name, value in wanted.items()}
    return lambda row: all(row[name] == value for name, value in names.items())


def levels(rows: list[Row], factor: str) -> list[str]:
    """The levels of a factor, in order."""
    return list(dict.fromkeys(row[factor] for row in rows))


def learning_rate(rows: list[Row]) -> None:
    """Li 2019: an inner best, lower for the pretrained network."""
    metric, rates = "test/top1", levels(rows, "train.lr")
    best: dict[str, dict[str, float]] = {}
    for start in levels(rows, "start"):
        for images in levels(rows, "target.num_images"):
            here = [row for row in rows if at(start=start, target__num_images=images)(row)]
            by_rate = {rate: by_replicate(here, metric, at(train__lr=rate)) for rate in rates}
            top = max(rates, key=lambda rate: mean(by_rate[rate].values()))
            print(
                f"<!-- {start}, {images} images: best {top}, "
                f"{', '.join(f'{r}: {mean(v.values()):.3f}' for r, v in by_rate.items())} -->"
            )
            for edge in (rates[0], rates[-1]):
                text = f"{start}, {images} images: best rate {top} over the edge {edge}"
                claim(text, minus(by_rate[top], by_rate[edge]))
            for replicate in by_rate[top]:
                rate = max(rates, key=lambda rate: by_rate[rate].get(replicate, -1.0))
                best.setdefault(start, {})[f"{images}/{replicate}"] = math.log10(float(rate))
    lower: dict[str, list[float]] = {}
    for key, difference in minus(best["scratch"], best["source"]).items():
        lower.setdefault(key.partition("/")[2], []).append(difference)
    claim(
        "best rate from scratch over that of the source",
        {replicate: mean(found) for replicate, found in lower.items()},
        " decades",
    )


def imbalance(rows: list[Row]) -> None:
    """Li 2019, H1.6: the drop from a balanced set is smaller with pretraining."""
    metric, factor = "test/balanced_accuracy", "target.imbalance.ratio"
    balanced, *ratios = levels(rows, factor)
    for ratio in ratios:
        drops = {}
        for start in levels(rows, "start"):
            here = [row for row in rows if row["start"] == start]
            drops[start] = minus(
                by_replicate([row for row in here if row[factor] == balanced], metric),
                by_replicate([row for row in here if row[factor] == ratio], metric),
            )
        for start, drop in drops.items():
            claim(f"drop from ratio 1 to {ratio}, {start}", drop)
        claim(f"ratio {ratio}: drop from scratch over that of the source",
              minus(drops["scratch"], drops["source"]))  # fmt: skip


def freeze_or_tune(rows: list[Row]) -> None:
    """Chu 2016, C3.2 and C3.5."""
    metric = "test/balanced_accuracy"

    def of(distance: str, treatment: str, images: str | None = None) -> dict[str, float]:
        return by_replicate(
            rows, metric,
            lambda r: r["distance"] == distance and r["layers"].startswith(treatment)
            and (images is None or r["target.per_class"] == images),
        )  # fmt: skip

    for distance in levels(rows, "distance"):
        claim(f"{distance}: tuned over frozen", minus(of(distance, "FT("), of(distance, "F(")))
        for images in levels(rows, "target.per_class"):
            claim(f"{distance}, {images} per class: tuned over frozen",
                  minus(of(distance, "FT(", images), of(distance, "F(", images)))  # fmt: skip
        claim(f"{distance}: copying 7 layers over copying 3, tuned",
              minus(of(distance, "FT(1-7)"), of(distance, "FT(1-3)")))  # fmt: skip


def real_images(rows: list[Row]) -> None:
    """Chu 2016, far cell: freeze against tune."""
    for images in levels(rows, "target.per_class"):
        here = [row for row in rows if row["target.per_class"] == images]
        tuned, frozen = (
            by_replicate([row for row in here if row["layers"].startswith(how)], "test/auroc")
            for how in ("FT(", "F(")
        )
        claim(f"{images} per class: tuned over frozen (AUROC)", minus(tuned, frozen))


TWINS: Mapping[str, Callable[[list[Row]], None]] = {
    "twin-1-learning-rate": learning_rate,
    "twin-3-imbalance": imbalance,
    "twin-5-freeze-or-tune": freeze_or_tune,
    "twin-6-real-images": real_images,
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
    sys.exit(0 if list(main()) else "no twin has been run in this home")
