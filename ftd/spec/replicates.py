"""Replicates: which seeds the repetitions of a cell have, and what counts as independent.

A number repeats everything.  Streams that are counted on their own are nested in the order in
which they are written: the first is the top stream, whose repetitions are the units of intervals,
the others repeat inside it.  Streams that are not named follow the top stream; pinned ones stay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ftd.errors import SpecError
from ftd.seeds import STREAMS, nested_seed, pinned_seed
from ftd.spec.experiment import MAX_REPLICATES, ExperimentSpec

GROUPS: Mapping[str, tuple[str, ...]] = {"train": ("init", "order", "augment", "dropout")}


@dataclass(frozen=True)
class Replicate:
    """One repetition of every cell: its number, its unit (the top stream's), its seeds."""

    index: int  # 0-based
    unit: int
    seeds: Mapping[str, int]  # by stream


def replicates(spec: ExperimentSpec) -> tuple[Replicate, ...]:
    """The repetitions of each cell of `spec`, in order.

    Raises SpecError for a stream that is counted twice or both counted and pinned, too many
    repetitions, or ones that nothing would tell apart.
    """
    counts = counted(spec)
    depths = _depths(spec, counts)
    num_replicates = math.prod(counts.values())
    if num_replicates > MAX_REPLICATES:
        raise SpecError(
            f"{num_replicates:,} replicates, the limit is {MAX_REPLICATES:,}",
            where=spec.document.where(("replicates",)),
            fix="Count fewer of them",
        )
    if num_replicates > 1 and not depths:
        raise SpecError(
            "every stream is pinned, so all replicates would be one run",
            where=spec.document.where(("seeds",)),
            fix="Pin fewer streams, or leave out replicates",
        )
    pinned = {
        stream: pinned_seed(number, stream)
        for name, number in spec.seeds.items()
        for stream in members(name)
    }
    return tuple(
        Replicate(
            index,
            position[0],
            {
                stream: pinned[stream]
                if stream in pinned
                else nested_seed(spec.seed, position[: depths[stream]], stream)
                for stream in STREAMS
            },
        )
        for index, position in enumerate(itertools.product(*map(range, counts.values())))
    )


def counted(spec: ExperimentSpec) -> dict[str, int]:
    """Stream or group -> how often it repeats inside the one before; a plain number is ``all``."""
    given = spec.replicates
    return (
        {"all": given}
        if isinstance(given, int)
        else {str(name): number for name, number in given.items()}
    )


def num_inner(spec: ExperimentSpec) -> int:
    """How many replicates are averaged inside one unit of an interval."""
    return math.prod(list(counted(spec).values())[1:])


def members(name: str) -> tuple[str, ...]:
    """The streams that a name in ``seeds`` or ``replicates`` stands for."""
    return GROUPS.get(name, (name,))


def _depths(spec: ExperimentSpec, counts: Mapping[str, int]) -> dict[str, int]:
    """How many of the counted streams' numbers each stream depends on; pinned ones are left out."""
    pinned = _once(spec, "seeds", spec.seeds)
    depths = dict.fromkeys(STREAMS, 1)
    if "all" not in counts:
        inner = _once(spec, "replicates", counts)
        for name in set(pinned) & set(inner):
            raise SpecError(
                f"{name} is pinned and counted",
                where=spec.document.where(("seeds", pinned[name])),
                fix="Keep it in one of seeds and replicates",
            )
        order = list(counts)
        depths |= {stream: order.index(name) + 1 for stream, name in inner.items()}
    return {stream: depth for stream, depth in depths.items() if stream not in pinned}


def _once(spec: ExperimentSpec, key: str, names: Iterable[str]) -> dict[str, str]:
    """Stream -> the name that stands for it; SpecError when two do."""
    found: dict[str, str] = {}
    for name in names:
        for stream in members(name):
            if stream in found:
                raise SpecError(
                    f"{stream} is in {found[stream]} as well as in {name}",
                    where=spec.document.where((key, name)),
                    fix=f"{', '.join(GROUPS['train'])} are what train stands for: keep one",
                )
            found[stream] = name
    return found
