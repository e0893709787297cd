"""``ftd runs``: one line per run."""

from __future__ import annotations

import argparse

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.ledger.names import experiment_id
from ftd.ledger.reads import runs
from ftd.states import RunState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd runs``."""
    parser.add_argument(
        "experiment", nargs="?", metavar="EXPERIMENT", help="only its runs (default: all)"
    )
    parser.add_argument(
        "--state",
        action="append",
        choices=[str(state) for state in RunState],
        help="only runs in this state; may be given several times",
    )
    add_json(parser)
    parser.epilog = "example:\n  ftd runs solar-cells --state failed"


def run(args: argparse.Namespace) -> int:
    """List runs."""
    with opened(home_of(args)) as ledger, ledger.snapshot():
        experiment = experiment_id(ledger, args.experiment) if args.experiment else None
        states = [RunState(state) for state in args.state] if args.state else None
        found = runs(ledger, experiment=experiment, states=states)
    if args.json:
        print_json([row.as_json() for row in found])
        return 0
    from ftd.views.runs import run_table
    from ftd.views.table import show

    show([run_table(found)])
    return 0
