"""``ftd status``: what goes on now, live in a terminal, once in a pipe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.clock import now
from ftd.daemon.presence import daemon_identity
from ftd.daemon.reasons import reason
from ftd.diskspace import shortage
from ftd.layout import Home
from ftd.ledger import activity, inventory, reads, storage_waits
from ftd.ledger.resumed import resumed_after_reboot
from ftd.process import boot_id
from ftd.views import status
from ftd.views.table import show

if TYPE_CHECKING:
    from ftd.ledger.db import Ledger
    from ftd.ledger.rows import WaitingRow

NUM_EXPERIMENTS = 10
NUM_RECENT = 10
RESUMED_SHOWN_S = 86_400  # a reboot is news for a day
MAX_PLACES_COUNTED = 10_000  # of the experiments shown, newest first: some 10 ms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd status``."""
    parser.add_argument("--once", action="store_true", help="print once and leave, no live view")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="waiting runs to show (default 20)"
    )
    add_json(parser)
    parser.epilog = (
        "The live view is left with q or Ctrl-C.\n\n"
        "example:\n  ftd status\n  ftd status --json | python -m json.tool"
    )


def run(args: argparse.Namespace) -> int:
    """Show the status."""
    home = home_of(args)
    limit = max(args.limit, 0)
    with opened(home) as ledger:
        if args.json:
            print_json(snapshot(home, ledger, limit).as_json())
        elif args.once or not sys.stdout.isatty():
            show(status.tables(snapshot(home, ledger, limit)))
        else:
            from ftd.views.live import watch

            watch(lambda rows: status.tables(snapshot(home, ledger, min(limit, rows))))
    return 0


def snapshot(home: Home, ledger: Ledger, limit: int) -> status.Snapshot:
    """Everything there is to see, read in one moment; at most `limit` waiting runs."""
    daemon = daemon_identity(home)
    at = now()
    short = shortage(home.root) or storage_waits.pause(ledger, at)

    def why(row: WaitingRow) -> str:
        up = daemon is not None
        return reason(row, devices, daemon_up=up, short_of_space=short, now=at)

    with ledger.snapshot():
        devices = inventory.devices(ledger)
        running = activity.running(ledger)
        waiting = activity.waiting(ledger, limit)
        return status.Snapshot(
            home=home.root,
            at=at,
            daemon=daemon,
            devices=devices,
            running=running,
            waiting=[(row, why(row)) for row in waiting],
            counts=reads.counts(ledger),
            experiments=reads.experiments(
                ledger, limit=NUM_EXPERIMENTS, count_up_to=MAX_PLACES_COUNTED
            ),
            recent=reads.recent(ledger, NUM_RECENT),
            short_of_space=short,
            resumed=resumed_after_reboot(ledger, boot_id(), at - RESUMED_SHOWN_S),
        )
