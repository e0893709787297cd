"""Numbered layers: the names a network's layers have, and the text that says how each is treated.

``F(1-3)FT(4-7)R(8)`` freezes layers 1 to 3, fine-tunes 4 to 7 and re-initialises 8.  One text can
serve several networks: ``last`` and ``last-2`` count from the end, ``4-`` goes on to the end.

    treatments = term, { term } ;           every layer is covered exactly once
    term       = ("F" | "FT" | "R"), "(", range, { ",", range }, ")" ;
    range      = bound, [ "-", [ bound ] ] ;
    bound      = number | "last" | "last-", number ;

Knows no torch: the names come from a table that ``python -m jobs.models.table`` generates, those of
timm's networks from :mod:`jobs.timm_names`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from ftd.errors import InputError, UnknownName, closest
from jobs.timm_names import PREFIX, described, is_timm, timm_models

TABLE = Path(__file__).parent / "models" / "layers.json"

_TERM = re.compile(r"\s*(FT|F|R)\s*\(([^()]*)\)\s*")
_BOUND = r"[0-9]{1,6}|last(?:\s*-\s*[0-9]{1,6})?"
_RANGE = re.compile(rf"\s*({_BOUND})\s*(?:(-)\s*({_BOUND})?)?\s*")
_NUMBERED_NAME = re.compile(r"(.*?)([1-9][0-9]*)?$")
_EXAMPLE = "Write for example F(1-last-1)R(last) or FT(1-)"


class Treatment(StrEnum):
    """What happens to a layer's pretrained weights."""

    F = "F"  # frozen: kept as they are, BatchNorm and dropout in eval mode
    FT = "FT"  # fine-tuned: the start of training
    R = "R"  # re-initialised: thrown away


@lru_cache(maxsize=1)
def _table() -> dict[str, str]:
    table: dict[str, str] = json.loads(TABLE.read_text())
    return table


def packed(names: Sequence[str]) -> str:
    """Names of layers as one text: ``block1 block2 block3`` is ``block1-3``."""
    texts, index = [], 0
    while index < len(names):
        stem, number = _NUMBERED_NAME.match(names[index]).groups()  # type: ignore[union-attr]
        length = 1
        while (
            number
            and index + length < len(names)
            and names[index + length] == f"{stem}{int(number) + length}"
        ):
            length += 1
        last = f"-{int(number) + length - 1}" if length > 1 else ""
        texts.append(names[index] + last)
        index += length
    return " ".join(texts)


@lru_cache(maxsize=256)
def unpacked(text: str) -> tuple[str, ...]:
    """The names that :func:`packed` made `text` of."""
    names: list[str] = []
    for part in text.split():
        name, _, last = part.partition("-")
        stem, number = _NUMBERED_NAME.match(name).groups()  # type: ignore[union-attr]
        numbers = range(int(number), int(last) + 1) if last else ()
        names.extend([f"{stem}{n}" for n in numbers] or [name])
    return tuple(names)


def model_names() -> tuple[str, ...]:
    """The names of all built-in networks, sorted."""
    return tuple(sorted(_table()))


def names_like(pattern: str) -> tuple[str, ...]:
    """The names that hold the text `pattern` or, where it has wildcards, fit it; sorted.

    timm's for one that begins with ``timm/`` (UnknownName when timm is not installed).
    """
    names = timm_models() if is_timm(pattern) else model_names()
    if not set("*?[") & set(pattern):
        return tuple(name for name in names if pattern.removeprefix(PREFIX) in name)
    return tuple(name for name in names if fnmatchcase(name, pattern))


def numbered(model: str) -> tuple[str, ...]:
    """The names of a network's layers, first to last; layer n is entry n - 1.

    The last one is always the classifier alone.  Raises UnknownName for any other `model`.
    """
    if is_timm(model):
        return unpacked(described(model)["layers"])
    table = _table()
    if model not in table:
        raise UnknownName(
            f"no network is called '{model}'",
            fix=f"{closest(model, list(table))} `ftd layers --list` shows all names; timm's are "
            "called timm/NAME".strip(),
        )
    return unpacked(table[model])


def treatments(text: str, num_layers: int) -> tuple[Treatment, ...]:
    """The treatment of each of `num_layers` layers, as the `text` says.

    Raises InputError when the text is malformed, leaves a layer out or covers one twice.
    """
    covering: list[list[Treatment]] = [[] for _ in range(num_layers)]
    for treatment, ranges in _terms(text):
        for part in ranges.split(","):
            for index in _indices(part, text, num_layers):
                covering[index].append(treatment)
    _refuse(text, num_layers, "not covered", [not chosen for chosen in covering])
    _refuse(text, num_layers, "covered more than once", [len(chosen) > 1 for chosen in covering])
    return tuple(chosen[0] for chosen in covering)


def spelled(chosen: Sequence[Treatment]) -> str:
    """The shortest text in layer order, such as ``F(1-18)R(19)``."""
    terms, first = [], 1
    for treatment, run in itertools.groupby(chosen):
        last = first + sum(1 for _ in run) - 1
        terms.append(f"{treatment}({_span(first, last)})")
        first = last + 1
    return "".join(terms)


def canonical(text: str, num_layers: int) -> str:
    """The one spelling of `text` for a network of `num_layers` layers: plain numbers, in order."""
    return spelled(treatments(text, num_layers))


def check_weights(chosen: Sequence[Treatment], has_weights: bool) -> None:
    """Raises InputError when a layer is to be frozen and there are no weights to keep."""
    if Treatment.F in chosen and not has_weights:
        raise InputError(
            f"layers '{spelled(chosen)}' freezes layers, but there are no pretrained weights",
            fix="Random weights would stay as they are: use FT or R instead, or give weights",
        )


def _terms(text: str) -> list[tuple[Treatment, str]]:
    found, position = [], 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            rest = text[position:].strip()
            raise InputError(f"layers '{text}': cannot read '{rest}'", fix=_EXAMPLE)
        found.append((Treatment(match[1]), match[2]))
        position = match.end()
    return found


def _indices(part: str, text: str, num_layers: int) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise InputError(f"layers '{text}': '{part.strip()}' is no range of layers", fix=_EXAMPLE)
    first = _number(match[1], num_layers)
    last = num_layers if match[2] else first
    if match[3]:
        last = _number(match[3], num_layers)
    if not 1 <= first <= last <= num_layers:
        raise InputError(
            f"layers '{text}': '{part.strip()}' means {_span(first, last)}, "
            f"but the network's layers are 1-{num_layers}",
            fix="See `ftd layers MODEL` for their names",
        )
    return range(first - 1, last)


def _number(bound: str, num_layers: int) -> int:
    if not bound.startswith("last"):
        return int(bound)
    back = bound.removeprefix("last").strip().removeprefix("-").strip()
    return num_layers - int(back or 0)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _refuse(text: str, num_layers: int, problem: str, guilty: Sequence[bool]) -> None:
    if not any(guilty):
        return
    numbers = [number for number, is_guilty in enumerate(guilty, start=1) if is_guilty]
    spans = []
    for _, run in itertools.groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        members = [number for _, number in run]
        spans.append(_span(members[0], members[-1]))
    noun = "layer" if len(numbers) == 1 else "layers"
    verb = "is" if len(numbers) == 1 else "are"
    raise InputError(
        f"layers '{text}': {noun} {', '.join(spans)} of {num_layers} {verb} {problem}",
        fix="Every layer must be in exactly one of F(...), FT(...) and R(...)",
    )
