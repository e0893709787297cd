"""Values as people read them: ids, levels, durations, sizes, times, numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from ftd.printable import printable

_DEFAULT_DECIMALS = 4
_MAX_DECIMALS = 6


def level(label: Any) -> str:
    """A level as it is written in a spec."""
    match label:
        case None:
            return "null"
        case True | False:
            return "true" if label else "false"
        case _:
            return printable(str(label))


def factors(chosen: Mapping[str, Any], replicate: int | None = None) -> str:
    """``layers=FT(1-) target.per_class=40``, and ``#2`` for the third replicate."""
    parts = [f"{name}={level(label)}" for name, label in chosen.items()]
    if replicate is not None:
        parts.append(f"#{replicate}")
    return " ".join(parts)


def run_ids(ids: Iterable[int], limit: int = 12) -> str:
    """``r1-r4 r7``: runs of consecutive ids, at most `limit` of them."""
    spans = _spans(sorted(set(ids)))
    shown = [f"r{first}" if first == last else f"r{first}-r{last}" for first, last in spans]
    more = len(shown) - limit
    return " ".join(shown[:limit]) + (f" and {more} more" if more > 0 else "")


def at_chance(sources: Iterable[int]) -> list[str]:
    """``source r12 is near chance``, for each of the runs that a run starts from."""
    return [f"source r{run} is near chance" for run in sources]


def _spans(ids: list[int]) -> list[tuple[int, int]]:
    if not ids:
        return []
    breaks = [(one, other) for one, other in pairwise(ids) if other != one + 1]
    firsts = [ids[0], *(other for _, other in breaks)]
    lasts = [*(one for one, _ in breaks), ids[-1]]
    return list(zip(firsts, lasts, strict=True))


def duration(seconds: float | None) -> str:
    """``4.2 s``, ``3 min 20 s``, ``5 h 07 min``, ``2 d 03 h``; ``-`` for None."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def size(num_bytes: int | None) -> str:
    """``512 B``, ``18.8 MiB``, ``1.2 GiB``: powers of 1024; ``-`` for None."""
    if num_bytes is None:
        return "-"
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def moment(at: float | None) -> str:
    """A point in time on this machine's clock; ``-`` for None."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def count(number: int, noun: str) -> str:
    """``1 run``, ``12 runs``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def decimals(spreads: Iterable[float | None]) -> int:
    """How many decimals a column needs so that its smallest spread keeps two digits."""
    real = [value for value in spreads if value is not None and value > 0 and math.isfinite(value)]
    if not real:
        return _DEFAULT_DECIMALS
    return min(max(1 - math.floor(math.log10(min(real))), 0), _MAX_DECIMALS)


def number(value: float | None, places: int = _DEFAULT_DECIMALS, *, signed: bool = False) -> str:
    """A number with `places` decimals, `signed` for differences; ``-`` for None.

    Numbers too small to show that way are written as ``1.2e-07``.
    """
    if value is None:
        return "-"
    sign = "+" if signed else ""
    if value != 0 and abs(value) < 0.5 * 10**-places:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.{places}f}"
