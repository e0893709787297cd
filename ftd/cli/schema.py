"""``ftd schema``: the JSON schema of specs, for editors and other programs."""

from __future__ import annotations

import argparse

from ftd.cli.output import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd schema``."""
    parser.add_argument(
        "job", nargs="?", metavar="JOB", help="with this job's parameters (default: any job's)"
    )
    add_json(parser)
    parser.epilog = (
        "The schema is JSON in any case.\n\nexample:\n  ftd schema finetune > spec.schema.json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    from ftd.planning.schema import schema

    print_json(schema(args.job))
    return 0
