"""What a growth adds to a network, as sizes: told by its parameters, or by the names of tensors.

The n-th growth of a network has its tensors under ``grown.n``, so a kept network says by its
tensors how it was grown, and is built again from them.  Knows no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jobs.params.growth import GrowthParams

ROOT = "grown"
UNITS = ("below", "beside", "hidden", "top")  # parts that are units

_NAME = re.compile(rf"{ROOT}\.([1-9][0-9]*)\.([a-z_]+)\.([a-z_]+)")


@dataclass(frozen=True)
class Structure:
    """The new parts of one growth, by their numbers of units; 0: there is none.

    ``below``: beside fc6.  ``beside``: beside fc7.  ``hidden``: reading fc7, beside it for the
    classifier.  ``top``: fc_a.  ``rank``: of a branch around fc7.  ``scaled``: blocks are
    normalised and scaled where they are joined, or fc_a's output where nothing is joined.
    """

    below: int = 0
    beside: int = 0
    hidden: int = 0
    top: int = 0
    rank: int = 0
    scaled: bool = False

    @property
    def joins(self) -> bool:
        """Whether the classifier, or fc_a, reads new units beside the old ones."""
        return bool(self.beside or self.hidden)

    @property
    def scales_below(self) -> bool:
        """Whether h6 and the units beside it are normalised and scaled for the new units."""
        return self.scaled and self.below > 0


@dataclass(frozen=True)
class Dims:
    """Sizes of the network that grows: numbers of features and classes.

    ``width`` is what the classifier reads, ``into_last`` what fc7's neighbours read, ``into_below``
    what fc6's do (0: nothing can stand there); ``last`` is the number of units of fc7 itself.
    """

    width: int
    num_classes: int
    into_last: int
    into_below: int = 0
    last: int = 0


def structure_of(wanted: GrowthParams, dims: Dims) -> Structure:
    """The structure that parameters ask for, in a network of these sizes."""
    if wanted.parameters is None:
        return _sized(wanted, wanted.units or 0, dims)

    def num_more(units: int) -> int:
        return num_parameters(_sized(wanted, units, dims), dims)

    units = _nearest(num_more, wanted.parameters)
    return _sized(wanted, units, dims)


def _sized(wanted: GrowthParams, units: int, dims: Dims) -> Structure:
    kind, scaled = wanted.type, wanted.scaled
    if kind == "none":
        return Structure()
    if kind == "scale_only":
        return Structure(scaled=True)
    if kind == "da":
        return Structure(top=units, scaled=scaled)
    if kind == "net2deeper":
        return Structure(top=dims.width)
    if kind == "lora":
        return Structure(rank=units)
    if kind == "bottleneck":
        return Structure(hidden=units, scaled=scaled)
    below, top = wanted.num_below(units), wanted.num_on_top(units)
    return Structure(below=below, beside=units, top=top, scaled=scaled)


def num_parameters(structure: Structure, dims: Dims) -> int:
    """How many parameters a network gains: those of new parts, and of the classifier's new columns
    less those it loses."""
    s, reads_last = structure, dims.into_last
    count = 0
    if s.below:
        count += s.below * (dims.into_below + 1)
        reads_last += s.below
    if s.beside:
        count += s.beside * (reads_last + 1)
    if s.hidden:
        count += s.hidden * (dims.width + 1)
    joined = dims.width + s.beside + s.hidden
    if s.scales_below:
        count += reads_last
    if s.scaled:
        count += joined if s.joins or not s.top else s.top
    if s.rank:
        count += s.rank * (dims.into_last + dims.last)
    read = joined
    if s.top:
        count += s.top * (joined + 1)
        read = s.top
    return count + (read - dims.width) * dims.num_classes


def _nearest(num_more: Callable[[int], int], wanted: int) -> int:
    """The number of units, at least 1, whose parameters are nearest to `wanted` (ties: fewer)."""
    high = 1
    while num_more(high) < wanted:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if num_more(middle) < wanted else (low, middle)
    return min((max(low, 1), high), key=lambda units: abs(num_more(units) - wanted))


def structures_in(shapes: Mapping[str, Sequence[int]]) -> tuple[Structure, ...]:
    """The growths, first to last, of a network whose tensors have these names and shapes."""
    sizes: dict[int, dict[str, int]] = {}
    for number, part, tensor, shape in _parts(shapes):
        own = sizes.setdefault(number, {})
        if (part in UNITS and tensor == "weight") or (part, tensor) == ("lora", "down"):
            own[part] = shape[0]
        elif part == "scale":
            own[part] = 1
    return tuple(_structure(sizes[number]) for number in sorted(sizes))


def _structure(sizes: Mapping[str, int]) -> Structure:
    """The structure whose parts have these numbers of units."""
    below, beside, hidden, top = (sizes.get(part, 0) for part in UNITS)
    return Structure(below, beside, hidden, top, sizes.get("lora", 0), "scale" in sizes)


def _parts(
    shapes: Mapping[str, Sequence[int]],
) -> Iterator[tuple[int, str, str, Sequence[int]]]:
    for name, shape in shapes.items():
        match = _NAME.fullmatch(name)
        if match and shape:
            yield int(match[1]), match[2], match[3], shape
