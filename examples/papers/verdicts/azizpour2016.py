"""Twins of Azizpour et al. 2016 (Factors of transferability for a ConvNet representation)."""

from __future__ import annotations

from statistics import mean

from evidence import PerUnit, Row, at, by_replicate, claim, levels, minus, rows_of

BUDGET = ("5 of 1200", "10 of 600", "25 of 240", "50 of 120", "100 of 60")
EACH = ("5 of 60", "10 of 60", "25 of 60", "50 of 60", "100 of 60")


def classes(rows: list[Row]) -> None:
    """Many classes against many images of each, at a fixed budget and at fixed images per class."""
    factor, metric = "model.weights.cell.source", "test/top1"
    for layer in levels(rows, "features.layer"):
        here = [row for row in rows if row["features.layer"] == layer]

        def of(source: str, target: str | None = None, rows: list[Row] = here) -> PerUnit:
            return by_replicate(
                rows, metric, lambda r: r[factor] == source and target in (None, r["target"])
            )

        told = ", ".join(f"{one}: {mean(of(one).values()):.3f}" for one in (*BUDGET, *EACH[:-1]))
        print(f"<!-- {layer}: {told} -->")
        most, some = BUDGET[-1], BUDGET[2]
        for target in (None, *levels(rows, "target")):
            at_what = f"{layer}, {target or 'all targets'}"
            claim(f"{at_what}: 6,000 images, 100 classes over 5",
                  minus(of(most, target), of(BUDGET[0], target)))  # fmt: skip
            claim(f"{at_what}: 6,000 images, 100 classes over 25",
                  minus(of(most, target), of(some, target)))  # fmt: skip
            claim(f"{at_what}: 60 images each, 100 classes over 5",
                  minus(of(most, target), of(EACH[0], target)))  # fmt: skip


def layers(rows: list[Row]) -> None:
    """Which layer is best by task, and what principal components cost."""
    best: dict[str, int] = {}
    for target in levels(rows, "target"):
        metric = "test/auroc" if target == "solar cells" else "test/top1"
        here = [row for row in rows if row["target"] == target]
        of_layer = {
            int(layer): by_replicate(here, metric, at(features__layer=layer, normalise__pca=""))
            for layer in levels(rows, "features.layer")
        }
        best[target] = top = max(of_layer, key=lambda layer: mean(of_layer[layer].values()))
        told = ", ".join(f"{one}: {mean(value.values()):.3f}" for one, value in of_layer.items())
        print(f"<!-- {target} ({metric}): best layer {top}; {told} -->")
        if top != max(of_layer):
            claim(
                f"{target}: layer {top} over the last",
                minus(of_layer[top], of_layer[max(of_layer)]),
            )
        for components in ("8", "32", "64"):
            reduced = by_replicate(
                here, metric, at(features__layer=str(top), normalise__pca=components)
            )
            claim(f"{target}, layer {top}: all dimensions over {components} components",
                  minus(of_layer[top], reduced))  # fmt: skip
    proxy = rows_of("twin-8-distances")
    found = {
        target: by_replicate(proxy, "distance/proxy_batchnorm", at(target=target))
        for target in best
        if proxy
    }
    for target, values in sorted(found.items(), key=lambda pair: mean(pair[1].values())):
        print(f"<!-- {target}: proxy distance {mean(values.values()):.3f}, best {best[target]} -->")


def early_wide_deep(rows: list[Row]) -> None:
    """Whether training for long, wider and deeper sources are better, from near to far targets."""
    for target in levels(rows, "target"):
        metric = "test/auroc" if target == "solar cells" else "test/top1"
        here = [row for row in rows if row["target"] == target]
        _sources(here, metric, target)


def early_wide_deep_retrieval(rows: list[Row]) -> None:
    """The same for retrieval, the farthest."""
    _sources(rows, "test/map", "retrieval")


def _sources(rows: list[Row], metric: str, target: str) -> None:
    of = {one: by_replicate(rows, metric, at(source=one)) for one in levels(rows, "source")}
    told = ", ".join(f"{one}: {mean(values.values()):.3f}" for one, values in of.items())
    print(f"<!-- {target} ({metric}): {told} -->")
    for better, worse in (
        ("2700 steps", "100 steps"),
        ("2700 steps", "300 steps"),
        ("2700 steps", "900 steps"),
        ("standard", "half as wide"),
        ("twice as wide", "standard"),
        ("4 times as wide", "twice as wide"),
        ("6 layers", "4 layers"),
        ("standard", "6 layers"),
    ):
        if worse in of:
            claim(f"{target}: {better} over {worse}", minus(of[better], of[worse]))


def retrieval(rows: list[Row]) -> None:
    """Which layer finds views of the same cell, and whether whitened components help."""
    metric = "test/map"
    of_layer = {
        layer: by_replicate(rows, metric, at(features__layer=layer, components="all"))
        for layer in levels(rows, "features.layer")
    }
    top = max(of_layer, key=lambda layer: mean(of_layer[layer].values()))
    last = list(of_layer)[-1]
    told = ", ".join(f"{one}: {mean(value.values()):.3f}" for one, value in of_layer.items())
    print(f"<!-- best layer {top}; {told} -->")
    if top != last:
        claim(f"layer {top} over the last", minus(of_layer[top], of_layer[last]))
    for layer in dict.fromkeys((top, last)):
        for components in ("32", "32 whitened"):
            reduced = by_replicate(rows, metric, at(features__layer=layer, components=components))
            claim(
                f"layer {layer}: {components} over all dimensions", minus(reduced, of_layer[layer])
            )
