"""A table of text: one value, printed plainly in a pipe and with colours in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from ftd.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {
    "running": "cyan",
    "queued": "blue",
    "held": "yellow",
    "done": "green",
    "failed": "red",
    "cancelled": "magenta",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
    "free": "green",
    "external": "red",
    "unknown": "yellow",
    "missing": "red",
}
_GAP = "  "
_NEVER_WRAPPED = 25  # columns up to this width stay on one line; longer ones give way


@dataclass(frozen=True)
class Table:
    """Rows of cells below headings; a heading that starts with ``>`` is a column of numbers.

    `title` stands above, every one of `notes` below; without rows, only `empty` is shown.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: str = ""
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether there is anything to print."""
        return bool(self.rows or self.empty or self.notes)


def table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    empty: str = "",
    notes: Sequence[str] = (),
) -> Table:
    """A table whose cells are made printable."""
    cells = tuple(tuple(printable(cell) for cell in row) for row in rows)
    return Table(printable(title), tuple(headings), cells, empty, tuple(map(printable, notes)))


def show(tables: Sequence[Table], stream: TextIO | None = None) -> None:
    """Print tables to `stream` (standard output): rich in a terminal, plain otherwise."""
    stream = stream or sys.stdout
    if stream.isatty():
        from rich.console import Console

        Console(file=stream).print(rich_tables(tables))
    else:
        stream.write("\n".join(plain(one) for one in tables if one.shown))


def plain(one: Table) -> str:
    """The table as lines of text, nothing cut off; ends with a newline."""
    lines = [one.title] if one.title else []
    if one.rows:
        names = [heading.removeprefix(">") for heading in one.headings]
        widths = [max(map(len, column)) for column in zip(names, *one.rows, strict=True)]
        right = [heading.startswith(">") for heading in one.headings]
        for row in (names, *one.rows) if any(names) else one.rows:
            cells = (
                cell.rjust(width) if is_right else cell.ljust(width)
                for cell, width, is_right in zip(row, widths, right, strict=True)
            )
            lines.append(_GAP.join(cells).rstrip())
    elif one.empty:
        lines.append(one.empty)
    lines += one.notes
    return "\n".join(lines) + "\n"


def rich_tables(tables: Sequence[Table]) -> RenderableType:
    """All tables as one renderable for a terminal."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for one in tables:
        if not one.shown:
            continue
        if parts:
            parts.append("")
        if one.title:
            parts.append(Text(one.title, style="bold"))
        if one.rows:
            parts.append(_rich_table(one))
        elif one.empty:
            parts.append(Text(one.empty, style="dim"))
        parts += [Text(note, style="dim") for note in one.notes]
    return Group(*parts)


def _rich_table(one: Table) -> RenderableType:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
        show_header=any(one.headings),
    )
    for heading, cells in zip(one.headings, zip(*one.rows, strict=True), strict=True):
        is_short = max(map(len, cells)) <= _NEVER_WRAPPED
        drawn.add_column(
            heading.removeprefix(">"),
            justify="right" if heading.startswith(">") else "left",
            no_wrap=is_short,
            overflow="ellipsis" if is_short else "fold",
        )
    for row in one.rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return drawn
