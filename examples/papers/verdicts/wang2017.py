"""Twins of Wang et al. 2017 (Growing a Brain: fine-tuning by increasing model capacity)."""

from __future__ import annotations

from statistics import mean

from evidence import PerUnit, Row, at, by_replicate, claim, levels, minus, rows_of

TOP1 = "test/top1"
CONTROLS = ("scaled-only", "da", "bottleneck", "net2wider", "gradmax", "lora")


def grow(rows: list[Row]) -> None:
    """Scaled new units beat plain tuning however much is tuned; unscaled ones do harm; controls."""

    def of(growth: str, extent: str) -> PerUnit:
        return by_replicate(rows, TOP1, at(growth=growth, layers=extent))

    for extent in levels(rows, "layers"):
        here = [row for row in rows if row["layers"] == extent]
        _tell(extent, here, TOP1)
        for arm in ("wa", "wa-from-3"):
            claim(
                f"{extent}: {arm} over finetuning", minus(of(arm, extent), of("finetuning", extent))
            )
        if len(levels(here, "growth")) > 2:
            _pace(here, f"{extent}: ")
            for control in (one for one in CONTROLS if of(one, extent)):
                claim(f"{extent}: wa over {control}", minus(of("wa", extent), of(control, extent)))
    extents = levels(rows, "layers")
    for more, fewer in zip(extents[:0:-1], extents[-2::-1], strict=True):
        claim(f"wa: {more} over {fewer}", minus(of("wa", more), of("wa", fewer)))


def gamma(rows: list[Row]) -> None:
    """Whether scaling does better from another start."""
    _tell("All, wa from gamma", rows, TOP1, "growth.gamma")
    of = {start: by_replicate(rows, TOP1, at(growth__gamma=start))
          for start in levels(rows, "growth.gamma")}  # fmt: skip
    for start in of:
        if start != "10.0":
            claim(f"All: wa from gamma {start} over 10", minus(of[start], of["10.0"]))
    plain = by_replicate(rows_of("twin-10-grow"), TOP1, at(growth="finetuning", layers="All"))
    for start in of if plain else ():
        claim(f"All: wa from gamma {start} over finetuning", minus(of[start], plain))


def grow_large(rows: list[Row]) -> None:
    """The same at four times the width, where all layers are tuned."""
    _tell("All", rows, TOP1)
    of = {arm: by_replicate(rows, TOP1, at(growth=arm)) for arm in levels(rows, "growth")}
    for one, other in (("wa", "finetuning"), ("finetuning", "wa-unscaled"), ("wa", "wa-unscaled")):
        claim(f"All: {one} over {other}", minus(of[one], of[other]))


def real_images(rows: list[Row]) -> None:
    """On real images, where nothing old is tuned."""
    metric = "test/auroc"
    for images in (*levels(rows, "target.per_class"), None):
        here = [row for row in rows if images in (None, row["target.per_class"])]
        where = f"{images} per class" if images else "all"
        _tell(where, here, metric)
        wa = by_replicate(here, metric, at(growth="wa"))
        for other in ("head-alone", "wa-unscaled", "bottleneck"):
            claim(f"{where}: wa over {other} (AUROC)",
                  minus(wa, by_replicate(here, metric, at(growth=other))))  # fmt: skip


def grow_or_wide(rows: list[Row]) -> None:
    """Growing for the target beats having been as wide from the start."""
    _tell("All", rows, TOP1, "network")
    sizes = {row["network"]: int(float(row["model/num_parameters"])) for row in rows}
    print(f"<!-- parameters: {sizes} -->")
    of = {name: by_replicate(rows, TOP1, at(network=name)) for name in sizes}
    for one, other in (
        ("grown", "wide"), ("grown", "wide-unscaled"), ("grown", "narrow"), ("wide", "narrow"),
        ("grown-from-3", "wide"), ("grown-from-3", "wide-unscaled"), ("grown-from-3", "narrow"),
        ("wide-unscaled", "narrow"), ("wide-unscaled", "wide"),
    ):  # fmt: skip
        claim(f"{one} over {other}", minus(of[one], of[other]))
    narrow = by_replicate(rows_of("twin-source"), TOP1)
    wide = rows_of("twin-12-wide-source")
    for scale in levels(wide, "growth.scale") if narrow else ():
        own = by_replicate(wide, TOP1, at(growth__scale=scale))
        told = f"narrow: {mean(narrow.values()):.3f}, wide: {mean(own.values()):.3f}"
        print(f"<!-- on the source's own images, scale {scale}: {told} -->")
        claim(f"on the source's own images: wide, scale {scale}, over narrow", minus(own, narrow))


def _pace(rows: list[Row], where: str) -> None:
    """Unscaled, random new units do harm; copies of old ones mend some of it, and gain nothing."""
    plain, scaled, drawn, copied = (
        by_replicate(rows, TOP1, at(growth=name))
        for name in ("finetuning", "wa", "wa-unscaled", "wa-unscaled-copy")
    )
    claim(f"{where}finetuning over wa-unscaled", minus(plain, drawn))
    claim(f"{where}wa over wa-unscaled", minus(scaled, drawn))
    claim(f"{where}wa-unscaled-copy over wa-unscaled", minus(copied, drawn))
    claim(f"{where}finetuning over wa-unscaled-copy", minus(plain, copied))
    claim(f"{where}wa over wa-unscaled-copy", minus(scaled, copied))


def _tell(where: str, rows: list[Row], metric: str, arms: str = "growth") -> None:
    """The means of the arms."""
    told = ", ".join(
        f"{arm}: {mean(by_replicate(rows, metric, at(**{arms: arm})).values()):.3f}"
        for arm in levels(rows, arms)
    )
    print(f"<!-- {where} ({metric}): {told} -->")
