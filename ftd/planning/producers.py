"""Producers: the runs that other runs read files of, as a spec names them.

``r12`` is a run.  An experiment's name means one cell of it, picked by levels where it has several,
replicate by replicate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ftd import catalog
from ftd.document import shown
from ftd.errors import InputError, UnknownName, closest
from ftd.job import Input
from ftd.outline import Label
from ftd.states import RunState

MAX_CELLS_SHOWN = 12


@dataclass(frozen=True)
class Producer:
    """A run that other runs may read files of, and where it stands in its experiment.

    ``factors`` are its cell's levels and what is tuned; ``artifacts`` the names of what it kept,
    None as long as it is not done.
    """

    run: str  # r12
    key: str
    state: RunState = RunState.QUEUED
    flags: tuple[str, ...] = ()
    factors: Mapping[str, Label] = field(default_factory=dict)
    place: tuple[int, int] = (0, 0)  # cell and candidate
    artifacts: tuple[str, ...] | None = None
    job: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)  # resolved, JSON values


Producers = Callable[[str], tuple[Producer, ...]]  # all that people call so, by replicate


def no_runs(text: str) -> tuple[Producer, ...]:
    """The runs that people call so, where there are none."""
    raise UnknownName(f"there is no run '{text}'", fix="'ftd runs' lists them")


def picked(item: Input, found: Sequence[Producer]) -> tuple[Producer, ...]:
    """Those of the runs `found` under the name ``item.where`` that `item` means, by replicate.

    Raises InputError where its levels pick no one cell, and for a run that will not be done, has
    diverged, or does not keep the file that is asked for.
    """
    chosen = [one for one in found if _has(one, item)]
    if len({one.place for one in chosen}) != 1:
        raise _not_one(item, found, chosen)
    for one in chosen:
        _check_usable(one)
        _check_kept(one, item)
    return tuple(chosen)


def _has(one: Producer, item: Input) -> bool:
    return all(
        name in one.factors and _alike(one.factors[name], level) for name, level in item.cell
    )


def _alike(level: Label, wanted: Label) -> bool:
    """Whether two levels are one: 1 and 1.0 are, 1 and true or '1' are not."""
    return level == wanted and isinstance(level, bool) == isinstance(wanted, bool)


def _not_one(item: Input, found: Sequence[Producer], chosen: Sequence[Producer]) -> InputError:
    text = item.where
    if re.fullmatch(r"r?\d+", text):
        return InputError(f"'{text}' is one run, which has no cells", fix="Leave out cell")
    factors = list(dict.fromkeys(name for one in found for name in one.factors))
    unknown = next((name for name, _ in item.cell if name not in factors), None)
    if unknown is not None:
        listed = f"Its factors: {', '.join(factors)}" if factors else "It has a single cell"
        return InputError(
            f"experiment '{text}' has no factor '{unknown}'",
            fix=f"{closest(unknown, factors)} {listed}".strip(),
        )
    if not chosen:
        return InputError(
            f"experiment '{text}' has no cell with {_levels(dict(item.cell))}",
            fix=f"Its cells: {_cells(found)}",
        )
    several = "candidates" if len({one.place[0] for one in chosen}) == 1 else "cells"
    some = f" with {_levels(dict(item.cell))}" if item.cell else ""
    return InputError(
        f"experiment '{text}' has several {several}{some}, so its name means no one network",
        fix=f"Pick one with cell: {{FACTOR: level}}. There are: {_cells(chosen)}",
    )


def _check_usable(one: Producer) -> None:
    if one.state in (RunState.FAILED, RunState.CANCELLED):
        raise InputError(
            f"run '{one.run}' is {one.state}, so there is nothing to read of it",
            fix=f"First `ftd retry {one.run}`, or name another run",
        )
    if "diverged" in one.flags:
        raise InputError(
            f"run '{one.run}' diverged, so what it kept means nothing", fix="Name another run"
        )


def _check_kept(one: Producer, item: Input) -> None:
    names = one.artifacts if one.artifacts is not None else _will_keep(one)
    if item.file and names is not None and item.file not in names:
        verb = "kept" if one.artifacts is not None else "will keep"
        raise InputError(
            f"run '{one.run}' of '{item.where}' {verb} no {item.file}",
            fix=f"It {verb}: {', '.join(names) or 'nothing'}",
        )


def _will_keep(one: Producer) -> tuple[str, ...] | None:
    """What a run that is not done is going to keep; None where nobody knows."""
    if one.job not in catalog.BUILT_IN:
        return None
    job = catalog.job(one.job)
    try:
        return job.keeps(job.Params.model_validate(one.params))
    except ValidationError:  # it was planned by another version, with other parameters
        return None


def _levels(levels: Mapping[str, Label]) -> str:
    return " ".join(f"{name}={shown(level)}" for name, level in levels.items())


def _cells(found: Sequence[Producer]) -> str:
    cells = list(dict.fromkeys(_levels(one.factors) for one in found))
    more = len(cells) - MAX_CELLS_SHOWN
    return "; ".join(cells[:MAX_CELLS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
