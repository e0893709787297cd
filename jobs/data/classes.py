"""Which classes the network tells apart: those of the dataset merged, chosen and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftd.errors import DataError, closest
from ftd.seeds import keyed_hash
from jobs.data.keyed import Indices
from jobs.data.listing import Listing
from jobs.manifest import read_class_map
from jobs.params.classes import ClassesParams


def with_classes(listing: Listing, classes: ClassesParams, seed: int) -> tuple[Listing, Indices]:
    """`listing` with the classes asked for (in its order), and the samples that have one of them.

    `seed` is that of the stream ``classes``.  The samples are those of `listing`, whose labels
    become -1 where their class is left out; with several labels per image all samples stay.
    Raises DataError for names that the dataset does not have, or when fewer than two are left.
    """
    becomes = _becomes(listing, classes)
    names = list(dict.fromkeys(becomes[name] for name in listing.class_names))
    kept = _drawn(_kept(listing, names, classes), classes, listing, seed)
    if len(kept) < 2 and not listing.multi_label:
        raise DataError(
            f"target.classes leave {len(kept)} class of {listing.where}", fix="Keep at least two"
        )
    number = {name: label for label, name in enumerate(kept)}
    column = np.array([number.get(becomes[name], -1) for name in listing.class_names])
    if listing.multi_label:
        labels = np.zeros((len(listing), len(kept)), np.int64)
        for old, new in enumerate(column.tolist()):
            if new >= 0:
                labels[:, new] |= listing.labels[:, old]
        members = np.arange(len(listing))
    else:
        labels = column[listing.labels]
        members = np.flatnonzero(labels >= 0)
    return replace(listing, class_names=tuple(kept), labels=labels), members


def _becomes(listing: Listing, classes: ClassesParams) -> Mapping[str, str]:
    """What every class of the dataset becomes; itself unless merged."""
    names = listing.class_names
    if classes.map is not None:
        found = read_class_map(Path(classes.map))
        missing = next((name for name in names if name not in found), None)
        if missing is not None:
            raise DataError(f"class {missing} of {listing.where} has no line", where=classes.map)
        return found
    merged = {old: new for new, olds in classes.merge.items() for old in olds}
    _check_known(merged, names, "target.classes.merge", listing)
    becomes = {name: merged.get(name, name) for name in names}
    for new in classes.merge:
        if becomes.get(new, new) != new or (new in names and new not in classes.merge[new]):
            raise DataError(
                f"'{new}' is a class of {listing.where} already",
                where="target.classes.merge",
                fix=f"Name the new class otherwise, or list {new} among those that become it",
            )
    return becomes


def _kept(listing: Listing, names: list[str], classes: ClassesParams) -> list[str]:
    only = set(names if classes.only is None else classes.only)
    _check_known(only, names, "target.classes.only", listing)
    _check_known(classes.drop, names, "target.classes.drop", listing)
    return [name for name in names if name in only - set(classes.drop)]


def _drawn(names: list[str], classes: ClassesParams, listing: Listing, seed: int) -> list[str]:
    """The first ``num_classes`` in an order drawn by name: nested, and whatever else there is."""
    wanted = classes.num_classes
    if wanted is None:
        return names
    if wanted > len(names):
        raise DataError(
            f"target.classes.num_classes: {wanted} asked for, but there are only {len(names)}",
            where=listing.where,
            fix=f"Ask for at most {len(names)}",
        )
    drawn = set(sorted(names, key=lambda name: keyed_hash("classes", seed, name))[:wanted])
    return [name for name in names if name in drawn]


def _check_known(
    wanted: Iterable[str], known: Iterable[str], parameter: str, listing: Listing
) -> None:
    allowed = sorted(known)
    for name in wanted:
        if name not in allowed:
            raise DataError(
                f"{listing.where} has no class '{name}'",
                where=parameter,
                fix=f"{closest(name, allowed)} Classes: {', '.join(allowed[:30])}"
                f"{', ...' if len(allowed) > 30 else ''}".strip(),
            )
