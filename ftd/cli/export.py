"""``ftd export``: an experiment as tidy rows, for pandas, R or a spreadsheet."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ftd.cli.home import home_of, opened
from ftd.errors import InputError
from ftd.ledger.db import Ledger
from ftd.ledger.details import metric_rows
from ftd.ledger.names import experiment_id
from ftd.ledger.places import PlaceRow, outline, places
from ftd.stats.reading import chosen
from ftd.stats.selection import Choice

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
        "A factor called like another column is written as factor:NAME.  Where parameters are\n"
        "tuned, every candidate has a row, and `chosen` says whether it is the one that counts.\n\n"
        "example:\n  ftd export solar-cells --output solar-cells.csv"
    )


def run(args: argparse.Namespace) -> int:
    """Export an experiment."""
    with opened(home_of(args)) as ledger, ledger.snapshot():
        number = experiment_id(ledger, args.experiment)
        found, read_as = places(ledger, number), outline(ledger, number)
        standing = _Standing.of(chosen(found, read_as)) if read_as.tuning else None
        make = partial(_histories, ledger) if args.metrics == "all" else _finals
        rows = make(found, standing)
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


@dataclass(frozen=True)
class _Standing:
    """Which candidates are chosen, by cell, replicate and candidate; absent: not decided yet."""

    is_chosen: Mapping[tuple[int, int, int], bool]

    @classmethod
    def of(cls, choices: Sequence[Choice]) -> _Standing:
        return cls(
            {
                (trial.cell, trial.replicate, trial.candidate): trial is one.chosen
                for one in choices
                if one.chosen is not None
                for trial in one.trials
            }
        )


def _finals(found: Sequence[PlaceRow], standing: _Standing | None) -> list[Row]:
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
                    "cost_actual_s": round(run.cost_actual_s, 3),
                    "cost_alone_s": round(run.cost_alone_s, 3),
                    "attempts": run.attempts,
                    "flags": " ".join(run.flags),
                    "approximate": run.approximate,
                    "state_sha256": run.state_sha256,
                    "error": run.error,
                },
                standing,
            )
        )
    return rows


def _histories(ledger: Ledger, found: Sequence[PlaceRow], standing: _Standing | None) -> list[Row]:
    return [row for place in found for row in _history(ledger, place, standing)]


def _history(ledger: Ledger, place: PlaceRow, standing: _Standing | None) -> Iterator[Row]:
    for row in metric_rows(ledger, place.run.id):
        yield _place(
            place,
            {"metric": row.name, "step": row.step, "value": row.value, "attempt": row.attempt},
            standing,
        )


def _place(place: PlaceRow, values: Row, standing: _Standing | None) -> Row:
    """One row: where, its factors and what is tuned as columns, and `values`."""
    where: Row = {"run": f"r{place.run.id}", "cell": place.cell, "replicate": place.replicate}
    if standing is not None:
        at = (place.cell, place.replicate, place.candidate)
        where |= {"candidate": place.candidate, "chosen": standing.is_chosen.get(at)}
    taken = where.keys() | values.keys()
    levels = {
        (f"factor:{name}" if name in taken else name): label
        for name, label in {**place.factors, **place.tuned}.items()
    }
    return {**where, **levels, **values}
