"""``ftd wait``: come back when runs have ended."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

from ftd.cli.home import home_of, opened
from ftd.clock import monotonic
from ftd.daemon.presence import daemon_identity
from ftd.layout import Home
from ftd.ledger.db import Ledger
from ftd.ledger.names import experiment_id, is_run, run_id
from ftd.ledger.places import state_counts
from ftd.states import ENDED, RunState
from ftd.views.status import states

POLL_S = 0.25
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
    told = _Told(home)
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
    """Progress on standard error: one line that renews itself, in a terminal only."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._live = sys.stderr.isatty()
        self._begun = False

    def tell(self, counts: Mapping[RunState, int]) -> None:
        """Say where the runs stand, and at first whether somebody works on them."""
        if not self._begun and daemon_identity(self._home) is None:
            print("ftd: no daemon is running here; 'ftd daemon' starts one", file=sys.stderr)
        self._begun = True
        if self._live:
            print(f"\r\x1b[K{states(counts)}", end="", file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        """Finish the line, and say something for good."""
        if self._live and self._begun:
            print(file=sys.stderr)
        if text:
            print(f"ftd: {text}", file=sys.stderr)
