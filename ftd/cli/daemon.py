"""``ftd daemon``: serve a home in the foreground."""

from __future__ import annotations

import argparse

from ftd.cli.home import home_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd daemon``."""
    parser.add_argument(
        "--until-idle",
        action="store_true",
        help="leave when nothing can go on without a person; 1 if a run failed. "
        "Data that is not mounted is waited for",
    )
    parser.add_argument("--json-log", action="store_true", help="log JSON lines instead of text")
    parser.epilog = (
        "Runs outlive the daemon: stop it with Ctrl-C and start it again whenever you like.\n\n"
        "example:\n  ftd daemon\n  ftd daemon --until-idle"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    from ftd.daemon.service import serve

    return serve(home_of(args), until_idle=args.until_idle, json_log=args.json_log)
