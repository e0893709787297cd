"""CSV files as people write them: manifests of images, and maps from class to class.

Knows no image and no array: a spec is checked with it before anything runs.  Every complaint names
line and column.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ftd.errors import DataError, closest
from ftd.printable import printable
from ftd.regular import read_bytes

MAX_MANIFEST_BYTES = 1 << 30
SPLITS = ("train", "val", "test")
REQUIRED = ("path", "label")
ROLES = ("query", "reference", "junk")
OPTIONAL = ("split", "group", "box", "role")

Box = tuple[int, int, int, int]
V = TypeVar("V")


@dataclass(frozen=True)
class Row:
    """One line: an image below the folder of images, or a `box` (left, top, right, bottom; whole
    pixels) of one.  ``split``, ``group`` and ``role`` (in retrieval) are empty where the manifest
    has no such column."""

    line: int
    path: str
    labels: tuple[str, ...]
    split: str = ""
    group: str = ""
    box: Box | None = None
    role: str = ""

    @property
    def id(self) -> str:
        """The path, with the box if there is one: ``a/1.png#0,0,50,80``."""
        return self.path + (f"#{','.join(str(edge) for edge in self.box)}" if self.box else "")


@dataclass(frozen=True)
class Manifest:
    """The rows of a file, in its order, and which columns it has."""

    path: Path
    columns: frozenset[str]
    rows: tuple[Row, ...]

    def where(self, row: Row, column: str = "") -> str:
        """What an error about `row` says."""
        return _where(self.path, row.line, column)


def read_manifest(path: Path, *, multi_label: bool) -> Manifest:
    """The manifest at `path`; with `multi_label`, labels are separated by ``;`` and may be none.

    Raises DataError naming line and column.
    """
    status = _status(path)
    return _manifest(path, multi_label, status.st_size, status.st_mtime_ns)


def read_class_map(path: Path) -> Mapping[str, str]:
    """Class -> what it becomes, from a CSV file with the columns ``class`` and ``becomes``."""
    found: dict[str, str] = {}
    for line, cells in _table(path, ("class", "becomes"), ()):
        name = cells["class"]
        if name in found:
            raise DataError(f"class {name} stands twice", where=_where(path, line, "class"))
        found[name] = cells["becomes"]
    return found


# Planning asks for every cell of an experiment anew, mostly about one and the same file.
@lru_cache(maxsize=2)
def _manifest(path: Path, multi_label: bool, size_bytes: int, mtime_ns: int) -> Manifest:
    rows: list[Row] = []
    first_line: dict[str, int] = {}
    columns: frozenset[str] = frozenset()
    for line, cells in _table(path, REQUIRED, OPTIONAL, may_be_empty=("label", "group", "box")):
        columns = frozenset(cells)
        row = _row(path, line, cells, multi_label)
        if row.id in first_line:
            raise DataError(
                f"{printable(row.id)} stands also in line {first_line[row.id]}",
                where=_where(path, line, "path"),
                fix="Keep one of them; several labels of one image need multi_label: true",
            )
        first_line[row.id] = line
        rows.append(row)
    if not rows:
        raise DataError("the manifest has no rows", where=str(path))
    return Manifest(path, columns, tuple(rows))


def _row(path: Path, line: int, cells: Mapping[str, str], multi_label: bool) -> Row:
    def checked(column: str, read: Callable[[str], V]) -> V:
        try:
            return read(cells[column])
        except ValueError as error:
            raise DataError(str(error), where=_where(path, line, column)) from None

    return Row(
        line=line,
        path=checked("path", _inside),
        labels=checked("label", _several_labels if multi_label else _one_label),
        split=checked("split", _one_of(SPLITS)) if "split" in cells else "",
        group=cells.get("group", ""),
        box=checked("box", _box) if cells.get("box") else None,
        role=checked("role", _one_of(ROLES)) if "role" in cells else "",
    )


def _inside(text: str) -> str:
    """A relative path in its shortest spelling that does not leave the folder."""
    path = os.path.normpath(text)
    if "\0" in text or os.path.isabs(path) or path.split(os.sep)[0] in ("..", "."):
        raise ValueError(
            f"'{printable(text)}' is not inside the folder of images; write paths relative to it"
        )
    return path


def _one_label(text: str) -> tuple[str, ...]:
    if ";" in text:
        raise ValueError(f"several labels ('{printable(text)}') need target.multi_label: true")
    if not text:
        raise ValueError("there is no label")
    return (text,)


def _several_labels(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(";") if name.strip()))


def _one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"'{printable(text)}' is none of {', '.join(allowed)}")
        return text

    return read


def _box(text: str) -> Box:
    wrong = (
        f"'{printable(text)}' is no box: four numbers x0 y0 x1 y1 (pixels) with x0 < x1, y0 < y1"
    )
    try:
        left, top, right, bottom = (float(edge) for edge in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(wrong) from None
    if not (0 <= left < right < 1e6 and 0 <= top < bottom < 1e6):
        raise ValueError(wrong)
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _table(
    path: Path,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    may_be_empty: tuple[str, ...] = (),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number (from 1) and cells by column of each row below the header; blank lines pass."""
    text = _text(path)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    try:
        for cells in rows:
            line = rows.line_num
            if not any(cells):
                continue
            if not columns:
                columns = _header(path, line, [cell.strip() for cell in cells], required, optional)
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{len(cells)} cells, the header has {len(columns)}", where=_where(path, line)
                )
            found = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
            empty = next((n for n in columns if not found[n] and n not in may_be_empty), None)
            if empty is not None:
                raise DataError("the cell is empty", where=_where(path, line, empty))
            yield line, found
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", where=_where(path, rows.line_num)) from error
    if not columns:
        raise DataError(f"no header; it has to name {', '.join(required)}", where=str(path))


def _header(
    path: Path, line: int, names: list[str], required: tuple[str, ...], optional: tuple[str, ...]
) -> list[str]:
    allowed = [*required, *optional]
    for name in names:
        if name not in allowed or names.count(name) > 1:
            what = "stands twice" if name in allowed else "is no column"
            raise DataError(
                f"'{printable(name)}' {what}",
                where=_where(path, line),
                fix=f"{closest(name, allowed)} The first line names columns: "
                f"{', '.join(allowed)}".strip(),
            )
    for name in required:
        if name not in names:
            raise DataError(
                f"there is no column '{name}'",
                where=_where(path, line),
                fix=f"The first line names columns: {', '.join(allowed)}",
            )
    return names


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})", fix="Check the path") from error


def _text(path: Path) -> str:
    try:
        return read_bytes(path, MAX_MANIFEST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})", fix="Check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 (byte {error.start})", where=str(path)) from error


def _where(path: Path, line: int, column: str = "") -> str:
    return f"{path}:{line}" + (f": column {column}" if column else "")
