"""``ftd show``: all about one run or experiment."""

from __future__ import annotations

import argparse

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.ledger.details import experiment_details, metric_rows, run_details, timing_rows
from ftd.ledger.names import experiment_id, is_run, run_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd show``."""
    parser.add_argument("target", metavar="RUN|EXPERIMENT", help="r123, e7 or a name")
    add_json(parser)
    parser.epilog = "example:\n  ftd show r12\n  ftd show solar-cells"


def run(args: argparse.Namespace) -> int:
    """Show one run or experiment."""
    from ftd.views import show as view
    from ftd.views.table import show

    with opened(home_of(args)) as ledger, ledger.snapshot():
        if is_run(args.target):
            number = run_id(ledger, args.target)
            about = run_details(ledger, number)
            for name, rows in (("metric_rows", metric_rows), ("timing_rows", timing_rows)):
                about[name] = [
                    {"name": row.name, "step": row.step, "value": row.value, "attempt": row.attempt}
                    for row in rows(ledger, number)
                ]
            tables = view.run_tables
        else:
            about = experiment_details(ledger, experiment_id(ledger, args.target))
            tables = view.experiment_tables
    if args.json:
        print_json(about)
    else:
        show(tables(about))
    return 0
