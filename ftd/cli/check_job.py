"""``ftd check-job``: whether a job can be resumed exactly, and whatever else is asked of a job."""

from __future__ import annotations

import argparse
from pathlib import Path

from ftd.cli.output import add_json, print_json
from ftd.errors import UnknownName


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd check-job``."""
    from ftd.check_job import NUM_ENTRIES, NUM_PLACES, TIMEOUT_S

    parser.add_argument(
        "job", metavar="JOB", help="./FILE.py:CLASS, PACKAGE.MODULE:CLASS or a job's name"
    )
    parser.add_argument(
        "--params",
        metavar="FILE",
        help="YAML with parameters of a short run, or a spec, whose first run is taken",
    )
    parser.add_argument(
        "--places",
        type=_count,
        default=NUM_PLACES,
        metavar="N",
        help=f"places to interrupt it at (default {NUM_PLACES})",
    )
    parser.add_argument(
        "--entries",
        type=_count,
        default=NUM_ENTRIES,
        metavar="N",
        help=f"entries of its checkpoints to try (default {NUM_ENTRIES})",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_S,
        metavar="SECONDS",
        help=f"the longest an attempt may take (default {TIMEOUT_S:.0f})",
    )
    add_json(parser)
    parser.epilog = (
        "The run is executed on the CPU a few dozen times, outside any home; nothing is kept.\n\n"
        "example:\n  ftd check-job ./soup.py:Soup --params short.yaml"
    )


def run(args: argparse.Namespace) -> int:
    """Check, saying each step; a job that breaks its contract is an error."""
    from ftd.check_job import check_spec
    from ftd.cli.enqueue import read_spec
    from ftd.source import absolute
    from ftd.spec.includes import fragments

    if args.job.endswith((".yaml", ".yml")):
        raise UnknownName(
            f"{args.job} holds parameters, it is no job",
            fix=f"Name the job, then the file: ftd check-job JOB --params {args.job}",
        )
    text, origin, base = "{}", "params", Path.cwd()
    if args.params is not None:
        text, origin, base = read_spec(args.params)
    checked = check_spec(
        text,
        origin,
        absolute(args.job, Path.cwd()),
        base=base,
        fragments=fragments(text, origin, base),
        num_places=args.places,
        num_entries=args.entries,
        timeout_s=args.timeout,
        told=(lambda line: None) if args.json else (lambda line: print(line, flush=True)),
    )
    if args.json:
        print_json({"job": checked.job, "checked": list(checked.lines)})
    else:
        print(f"{checked.job} keeps its contract")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
    return int(text)
