"""``ftd doctor``: is everything in order, and what to do if not."""

from __future__ import annotations

import argparse

from ftd.cli.checks import all_checks
from ftd.cli.home import home_of
from ftd.cli.output import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd doctor``."""
    add_json(parser)
    parser.epilog = "Ends with 1 if a check fails; warnings do not count.\n\nexample:\n  ftd doctor"


def run(args: argparse.Namespace) -> int:
    """Check home, machine and installation."""
    checks = list(all_checks(home_of(args)))
    if args.json:
        print_json(
            [
                {"check": one.name, "level": one.level, "text": one.text, "fix": one.fix}
                for one in checks
            ]
        )
    else:
        from ftd.views.table import show, table

        rows = [(one.name, one.level, one.text, one.fix) for one in checks]
        show([table("", ("check", "", "found", "what to do"), rows)])
    return 1 if any(one.level == "fail" for one in checks) else 0
