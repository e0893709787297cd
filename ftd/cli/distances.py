"""``ftd distances``: how far targets are, in which order, and whether measures agree on it."""

from __future__ import annotations

import argparse

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.errors import UnknownName, closest
from ftd.ledger.names import experiment_id
from ftd.ledger.places import places
from ftd.ledger.reads import experiments
from ftd.stats.ordering import orderings, target_factors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd distances``."""
    parser.add_argument(
        "experiment", metavar="EXPERIMENT", help="e7 or a name, of the job distance"
    )
    parser.add_argument(
        "--of",
        metavar="FACTOR",
        action="append",
        help="order the levels of this factor, again for more (default: those of the target)",
    )
    add_json(parser)
    parser.epilog = "example:\n  ftd distances far-and-near\n  ftd distances e7 --of source --json"


def run(args: argparse.Namespace) -> int:
    """Show what the runs of an experiment measured."""
    from ftd.views import distances as view
    from ftd.views.table import show

    with opened(home_of(args)) as ledger:
        number = experiment_id(ledger, args.experiment)
        (about,) = experiments(ledger, only=number)
        rows = places(ledger, number)
    known = sorted({name for row in rows for name in row.factors})
    for name in args.of or ():
        if name not in known:
            raise UnknownName(
                f"there is no factor {name}",
                fix=f"{closest(name, known)} Factors: {', '.join(known) or 'none'}".strip(),
            )
    found = orderings(rows, args.of or target_factors(rows))
    if args.json:
        print_json({"experiment": about.name, "id": f"e{about.id}", **view.as_json(found)})
    else:
        show(view.tables(f"e{about.id} {about.name}", found))
    return 0
