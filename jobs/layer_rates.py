"""Learning rates of single layers, as a spec writes them: ``{1-3: 0.1, conv5-fc7: 0.5}``.

A layer is meant by its number, by its name, or counted from the end (``last``, ``last-2``); two of
them joined by ``-`` mean all layers from one to the other.  Knows no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ftd.errors import InputError, closest

WHERE = "train.lr_factors"

_NUMBER = re.compile(r"[0-9]{1,6}")
_FROM_END = re.compile(r"last(?:\s*-\s*([0-9]{1,6}))?")


def layer_factors(
    factors: Mapping[str, float], decay: float | None, names: Sequence[str]
) -> tuple[float, ...]:
    """What the learning rate of each of the layers called `names` is multiplied with.

    With a layer decay d, layer i of L (from 1) gets d^(L - i), times its entry in `factors`.
    Raises InputError for an entry that means no layer, or for a layer that two entries mean.
    """
    found = [(decay or 1.0) ** (len(names) - number) for number in range(1, len(names) + 1)]
    meant: dict[int, str] = {}
    for text, factor in factors.items():
        for index in _indices(text, names):
            if index in meant:
                raise InputError(
                    f"'{meant[index]}' and '{text}' both mean layer {index + 1}, {names[index]}",
                    where=WHERE,
                    fix="Name every layer at most once",
                )
            meant[index] = text
            found[index] *= factor
    return tuple(found)


def _indices(text: str, names: Sequence[str]) -> range:
    """The 0-based layers that `text` means; names and ``last-2`` may hold a ``-`` themselves."""
    single = _index(text, names)
    if single is not None:
        return range(single, single + 1)
    for dash in re.finditer("-", text):
        first, last = _index(text[: dash.start()], names), _index(text[dash.end() :], names)
        if first is not None and last is not None and first <= last:
            return range(first, last + 1)
    raise InputError(
        f"'{text}' means no layer of this network, whose {len(names)} layers are "
        f"{names[0]} to {names[-1]}",
        where=WHERE,
        fix=f"{closest(text, list(names))} See `ftd layers MODEL` for names and numbers".strip(),
    )


def _index(text: str, names: Sequence[str]) -> int | None:
    text = text.strip()
    if text in names:
        return names.index(text)
    if _NUMBER.fullmatch(text):
        index = int(text) - 1
    elif match := _FROM_END.fullmatch(text):
        index = len(names) - 1 - int(match[1] or 0)
    else:
        return None
    return index if 0 <= index < len(names) else None
