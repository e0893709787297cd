"""``ftd logs``: what a run printed; with ``-f`` until it ends."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ftd.cli.home import home_of, opened
from ftd.errors import UnknownName
from ftd.layout import Home
from ftd.ledger.db import Ledger
from ftd.ledger.names import run_id
from ftd.ledger.places import last_attempt, states_of
from ftd.protocol import LOG
from ftd.states import ENDED

POLL_S = 0.25
CHUNK_BYTES = 1 << 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd logs``."""
    parser.add_argument("run", metavar="RUN", help="the run, r123")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on, across attempts, until the run ends"
    )
    parser.add_argument(
        "--attempt", type=int, metavar="N", help="this attempt's (default: the newest)"
    )
    parser.epilog = "example:\n  ftd logs r12 -f"


def run(args: argparse.Namespace) -> int:
    """Print a run's log."""
    home = home_of(args)
    with opened(home) as ledger:
        number = run_id(ledger, args.run)
        newest = last_attempt(ledger, number)
        attempt = args.attempt if args.attempt is not None else newest
        if args.attempt is not None and not 1 <= args.attempt <= newest:
            have = f"it has 1 to {newest}" if newest else "it has none yet"
            raise UnknownName(f"r{number} has no attempt {args.attempt}", fix=f"So far {have}")
        if args.follow:
            _follow(home, ledger, number, attempt, only=args.attempt is not None)
            return 0
        if not attempt:
            print(f"ftd: r{number} has not been started yet", file=sys.stderr)
            return 0
        if not _copy(home.attempt(number, attempt) / LOG, 0):
            print(f"ftd: r{number}, attempt {attempt} has printed nothing", file=sys.stderr)
    return 0


def _follow(home: Home, ledger: Ledger, number: int, attempt: int, *, only: bool) -> None:
    """Print everything new until the run (or, with `only`, the attempt) has ended."""
    offset = 0
    while True:
        # Asked before reading: what an ended attempt printed is then surely all there.
        newest = last_attempt(ledger, number)
        over = states_of(ledger, [number])[number] in ENDED and newest == attempt
        if attempt:
            offset = _copy(home.attempt(number, attempt) / LOG, offset)
            sys.stdout.flush()
        if over or (only and newest > attempt):
            return
        if newest > attempt:
            attempt, offset = attempt + 1, 0
            print(f"ftd: r{number}, attempt {attempt}", file=sys.stderr)
        else:
            time.sleep(POLL_S)


def _copy(path: Path, offset: int) -> int:
    """Copy a log from byte `offset` on to standard output; the offset it ends at."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while data := stream.read(CHUNK_BYTES):
                sys.stdout.buffer.write(data)
                offset += len(data)
    except FileNotFoundError:
        pass  # the worker has not printed anything yet
    return offset
