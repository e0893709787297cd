"""``ftd cancel``, ``hold``, ``release`` and ``retry``: what people wish of runs."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.daemon.submit import ChangeRequest, asking_user, submit
from ftd.layout import Home
from ftd.states import RunState

_FINISHED = (RunState.DONE, RunState.FAILED)
_EXAMPLES = {
    "cancel": "ftd cancel r12 --why 'wrong weights'\n  ftd cancel solar-cells",
    "hold": "ftd hold e7 --why 'the demo needs the machine'",
    "release": "ftd release e7",
    "retry": "ftd retry solar-cells",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options shared by all changes."""
    add_targets(parser)
    parser.add_argument("--why", default="", metavar="TEXT", help="a reason, kept in the history")
    verb = parser.prog.split()[-1]
    parser.epilog = (
        "Of a run that several experiments share, only the named experiment's wish changes;\n"
        f"it runs as long as one of them wants it.\n\nexample:\n  {_EXAMPLES[verb]}"
    )


def add_targets(parser: argparse.ArgumentParser) -> None:
    """What a change is about, and ``--json``."""
    parser.add_argument(
        "targets", nargs="+", metavar="EXPERIMENT|RUN", help="e7, a name, or r123; one or several"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Carry out the change that `args.verb` names."""
    request = ChangeRequest(verb=args.verb, targets=tuple(args.targets), why=args.why)
    return carry_out(home_of(args), request, as_json=args.json)


def carry_out(home: Home, request: ChangeRequest, *, as_json: bool) -> int:
    """Submit a change and tell where the runs it touched stand now."""
    touched = submit(home, request, asking_user())
    assert isinstance(touched, tuple), "a change request is answered so"
    found = _states(home, touched)
    if as_json:
        print_json(
            {
                "runs": [f"r{run}" for run in touched],
                "states": {f"r{run}": str(state) for run, state in found.items()},
            }
        )
    else:
        print(_told(request.verb, found))
    return 0


def _states(home: Home, runs: Sequence[int]) -> dict[int, RunState]:
    from ftd.ledger.places import states_of

    with opened(home) as ledger:
        return states_of(ledger, runs)


def _told(verb: str, found: dict[int, RunState]) -> str:
    from ftd.views.phrases import count, run_ids
    from ftd.views.status import states

    if not found:
        return f"{verb}: no run is concerned, nothing changed"
    ended = [run for run, state in found.items() if verb != "retry" and state in _FINISHED]
    stand = states(Counter(found.values()))
    if len(ended) == len(found):
        return f"{verb}: nothing changed, {run_ids(ended)} had ended before ({stand})"
    told = f"{verb}: {count(len(found), 'run')} ({run_ids(found)}), now {stand}"
    if ended:
        told += f"; nothing changed for {run_ids(ended)}, which had ended before"
    if verb in ("cancel", "hold") and RunState.RUNNING in found.values():
        told += "; running ones leave at their next checkpoint, if no one else wants them"
    return told
