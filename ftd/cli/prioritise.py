"""``ftd prioritise``: let runs go before or after others."""

from __future__ import annotations

import argparse

from ftd.cli.change import add_targets, carry_out
from ftd.cli.home import home_of
from ftd.daemon.submit import ChangeRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd prioritise``."""
    add_targets(parser)
    parser.add_argument("priority", type=int, metavar="N", help="higher runs first; 0 is usual")
    parser.epilog = "example:\n  ftd prioritise solar-cells 10\n  ftd prioritise r12 r13 -- -5"


def run(args: argparse.Namespace) -> int:
    """Give runs and experiments a priority."""
    request = ChangeRequest("prioritise", tuple(args.targets), priority=args.priority)
    return carry_out(home_of(args), request, as_json=args.json)
