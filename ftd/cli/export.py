"""``ftd export``: an experiment as tidy rows, for pandas, R or a spreadsheet."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftd.cli.home import home_of, opened
from ftd.errors import InputError
from ftd.ledger.db import Ledger
from ftd.ledger.details import metric_rows
from ftd.ledger.names import experiment_id
from ftd.ledger.places import PlaceRow, places

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd export``."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="e7 or a name")
    parser.add_argument("--format", choices=("csv", "json"), default="csv", help="default: csv")
    parser.add_argument("--json", dest="format", action="store_const", const="json",
                        help="the same as --format json")  # fmt: skip
    parser.add_argument(
        "--metrics",
        choices=("final", "all"),
        default="final",
        help="final: a row per place and a column per metric; all: a row per recorded value",
    )
    parser.add_argument("--output", metavar="FILE", help="write here (default: standard output)")
    parser.epilog = (
        "A place is a cell and a replicate; places whose runs are not done have empty metrics.\n"
        "A factor called like another column is written as factor:NAME.\n\n"
        "example:\n  ftd export solar-cells --output solar-cells.csv"
    )


def run(args: argparse.Namespace) -> int:
    """Export an experiment."""
    with opened(home_of(args)) as ledger, ledger.snapshot():
        number = experiment_id(ledger, args.experiment)
        found = places(ledger, number)
        rows = _histories(ledger, found) if args.metrics == "all" else _finals(found)
    text = as_csv(rows) if args.format == "csv" else json.dumps(rows, indent=1) + "\n"
    if args.output is None:
        sys.stdout.write(text)
        return 0
    try:
        Path(args.output).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(
            f"cannot write {args.output} ({error.strerror})", fix="Choose another --output"
        ) from error
    return 0


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV (RFC 4180, newline ends); an absent value is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _finals(found: Sequence[PlaceRow]) -> list[Row]:
    metrics = sorted({name for place in found for name in place.run.metrics})
    rows = []
    for place in found:
        run = place.run
        rows.append(
            _place(
                place,
                {
                    "state": str(run.state),
                    **{name: run.metrics.get(name) for name in metrics},
                    "cost_s": round(run.cost_s, 3),
                    "attempts": run.attempts,
                    "flags": " ".join(run.flags),
                    "approximate": run.approximate,
                    "state_sha256": run.state_sha256,
                    "error": run.error,
                },
            )
        )
    return rows


def _histories(ledger: Ledger, found: Sequence[PlaceRow]) -> list[Row]:
    return [row for place in found for row in _history(ledger, place)]


def _history(ledger: Ledger, place: PlaceRow) -> Iterator[Row]:
    for row in metric_rows(ledger, place.run.id):
        yield _place(
            place,
            {"metric": row.name, "step": row.step, "value": row.value, "attempt": row.attempt},
        )


def _place(place: PlaceRow, values: Row) -> Row:
    """One row: where, its factors as columns, and `values`."""
    where: Row = {"run": f"r{place.run.id}", "cell": place.cell, "replicate": place.replicate}
    taken = where.keys() | values.keys()
    chosen = {
        (f"factor:{name}" if name in taken else name): label
        for name, label in place.factors.items()
    }
    return {**where, **chosen, **values}
