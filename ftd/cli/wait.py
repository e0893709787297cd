"""``ftd wait``: come back when runs have ended."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftd.cli.home import home_of, opened
from ftd.clock import monotonic
from ftd.daemon.presence import daemon_identity
from ftd.layout import Home
from ftd.ledger.activity import running
from ftd.ledger.db import Ledger
from ftd.ledger.names import experiment_id, is_run, run_id
from ftd.ledger.places import state_counts
from ftd.states import ENDED, RunState
from ftd.views.status import states, work

if TYPE_CHECKING:
    from rich.live import Live

POLL_S = 0.25
STARTING_S = 3.0  # a daemon that was just started is not yet there
REST = 10  # at most this share of the time is spent asking the ledger: 1 in REST


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd wait``."""
    parser.add_argument(
        "targets", nargs="*", metavar="EXPERIMENT|RUN", help="what to wait for (default: all runs)"
    )
    parser.add_argument(
        "--timeout-s", "--timeout_s", type=float, metavar="S", help="give up after S seconds"
    )
    parser.epilog = (
        "Ends with 0 when all have ended and none failed, else with 1: a run failed, the time is\n"
        "over, or only held runs are left.\n\n"
        "example:\n  ftd wait solar-cells && ftd summary solar-cells"
    )


def run(args: argparse.Namespace) -> int:
    """Wait."""
    home = home_of(args)
    with opened(home) as ledger:
        experiments = [experiment_id(ledger, text) for text in args.targets if not is_run(text)]
        runs = [run_id(ledger, text) for text in args.targets if is_run(text)]
        deadline = None if args.timeout_s is None else monotonic() + args.timeout_s
        return _wait(home, ledger, experiments, runs, deadline)


def _wait(
    home: Home,
    ledger: Ledger,
    experiments: Sequence[int],
    runs: Sequence[int],
    deadline: float | None,
) -> int:
    told = _Told(home, ledger)
    try:
        return _until_ended(told, ledger, experiments, runs, deadline)
    finally:
        told.end("")


def _until_ended(
    told: _Told,
    ledger: Ledger,
    experiments: Sequence[int],
    runs: Sequence[int],
    deadline: float | None,
) -> int:
    while True:
        asked_at = monotonic()
        counts = state_counts(ledger, experiments, runs)
        open_states = {state for state, number in counts.items() if number} - ENDED
        if open_states <= {RunState.HELD}:
            return _verdict(told, counts)
        told.tell(counts)
        pause_s = max(POLL_S, REST * (monotonic() - asked_at))
        if deadline is not None:
            left_s = deadline - monotonic()
            if left_s <= 0:
                told.end(f"gave up waiting: {states(counts)}")
                return 1
            pause_s = min(pause_s, left_s)
        time.sleep(pause_s)


def _verdict(told: _Told, counts: Mapping[RunState, int]) -> int:
    if counts.get(RunState.HELD):
        told.end(f"only held runs are left ({states(counts)}); 'ftd release' lets them go on")
        return 1
    failed = counts.get(RunState.FAILED, 0)
    told.end(states(counts) if failed else "")
    return 1 if failed else 0


class _Told:
    """Progress on standard error: live in a terminal, else a line whenever a run has ended."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self._home = home
        self._ledger = ledger
        self._began_at = monotonic()
        self._warned = False
        self._ended = 0
        self._live: Live | None = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()

    def tell(self, counts: Mapping[RunState, int]) -> None:
        """Say where the runs stand, and whether somebody works on them."""
        self._warn_without_daemon()
        ended = sum(number for state, number in counts.items() if state in ENDED)
        if self._live is not None:
            from ftd.views.table import rich_tables

            self._live.update(rich_tables(work(running(self._ledger), counts)), refresh=True)
        elif ended > self._ended:
            print(f"ftd: {states(counts)}", file=sys.stderr)
        self._ended = ended

    def end(self, text: str) -> None:
        """Take the live view away, and say something for good."""
        if self._live is not None:
            self._live.stop()
        if text:
            print(f"ftd: {text}", file=sys.stderr)

    def _warn_without_daemon(self) -> None:
        """Once, when there has been none for longer than one takes to start."""
        late = monotonic() - self._began_at > STARTING_S
        if late and not self._warned and daemon_identity(self._home) is None:
            self._warned = True
            print("ftd: no daemon is running here; 'ftd daemon' starts one", file=sys.stderr)
