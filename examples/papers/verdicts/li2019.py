"""Twins of Li, Herranz, Jiang 2019 (Multifaceted analysis of fine-tuning).

The paper names the factors; what should be seen of each are hypotheses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from evidence import Row, at, by_replicate, claim, levels, minus

from jobs.layers import numbered


def learning_rate(rows: list[Row]) -> None:
    """An inner best, lower for the pretrained network."""
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
    """The drop from a balanced set is smaller with pretraining."""
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


def changes(rows: list[Row]) -> None:
    """Which layers move: relative change of weights, and likeness of features (CKA), by thirds."""
    *names, _ = numbered("efficientnet_lite0")  # the classifier is new, so it has not moved
    third = len(names) // 3
    low, top = names[:third], names[-third:]
    factor = "after.cell.train.lr"
    rates = levels(rows, factor)

    def of(metric: str, layers: Sequence[str], rate: str) -> dict[str, float]:
        """Replicate -> mean over layers."""
        here = [row for row in rows if row[factor] == rate]
        found = [by_replicate(here, f"{metric}_{layer}") for layer in layers]
        return {key: mean(one[key] for one in found) for key in found[0]}

    for rate in rates:
        for metric in ("change/relative", "val/cka"):
            told = ", ".join(f"{n}: {mean(of(metric, [n], rate).values()):.3f}" for n in names)
            print(f"<!-- {rate} {metric}: {told} -->")
        moved, alike = "change/relative", "val/cka"
        claim(f"lr {rate}: weights of the top third move more than those of the lowest",
              minus(of(moved, top, rate), of(moved, low, rate)))  # fmt: skip
        claim(f"lr {rate}: features of the lowest third stay more alike (CKA) than the top ones",
              minus(of(alike, low, rate), of(alike, top, rate)))  # fmt: skip
    slow, *_, fast = rates
    claim(f"weights of the lowest third move more at lr {fast} than at {slow}",
          minus(of("change/relative", low, fast), of("change/relative", low, slow)))  # fmt: skip
