"""``ftd summary``: which factor mattered, by how much, how sure we are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.errors import UnknownName, closest
from ftd.ledger.costs import figures
from ftd.ledger.names import experiment_id
from ftd.ledger.places import PlaceRow, outline, places
from ftd.ledger.reads import experiments
from ftd.stats.reading import chosen, observed
from ftd.stats.summary import summarise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd summary``."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="e7 or a name")
    parser.add_argument(
        "--metric", metavar="SPLIT/NAME", help="compare this metric (default: the spec's first)"
    )
    parser.add_argument("--runs", action="store_true", help="also list the runs behind each number")
    add_json(parser)
    parser.epilog = (
        "example:\n  ftd summary solar-cells\n  ftd summary e7 --metric test/top1 --runs"
    )


def run(args: argparse.Namespace) -> int:
    """Summarise an experiment."""
    from ftd.views import summary as view
    from ftd.views.table import show

    with opened(home_of(args)) as ledger:
        number = experiment_id(ledger, args.experiment)
        (about,) = experiments(ledger, only=number)
        rows, read_as = places(ledger, number), outline(ledger, number)
        recorded = figures(ledger, sorted({row.run.id for row in rows})) if args.json else {}
    metric = chosen_metric(rows, args.metric, about.primary_metric)
    choices = chosen(rows, read_as)
    found = summarise(observed(rows, choices, metric, read_as, recorded), metric, read_as, choices)
    if args.json:
        print_json({"experiment": about.name, "id": f"e{about.id}", **view.as_json(found)})
    else:
        show(view.tables(f"e{about.id} {about.name}", found, runs=args.runs))
    return 0


def chosen_metric(rows: Sequence[PlaceRow], wanted: str | None, primary: str) -> str:
    """The metric to compare: the one asked for, else the experiment's first.

    Raises UnknownName when runs are done and none has the metric that was asked for.
    """
    have = sorted({name for row in rows for name in row.run.metrics})
    if wanted is None:
        return primary if primary or not have else have[0]
    if have and wanted not in have:
        near = closest(wanted, have)
        raise UnknownName(
            f"no run has a metric {wanted}",
            fix=f"{near} Metrics: {', '.join(have)}".strip(),
        )
    return wanted
