"""``ftd fsck``: examine a home, explain what is wrong, and mend what is safely mendable."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import dataclass

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.daemon.presence import without_daemon
from ftd.errors import FtdError
from ftd.fsck.examine import CHECKS, examine
from ftd.fsck.problem import Problem
from ftd.layout import Home
from ftd.ledger.health import require_intact
from ftd.views.phrases import count


@dataclass(frozen=True)
class _Finding:
    check: str
    problem: Problem
    mended: bool
    why_not: str  # of a mending that failed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd fsck``."""
    parser.add_argument(
        "--repair", action="store_true", help="mend what can be mended safely; no daemon may run"
    )
    add_json(parser)
    parser.epilog = (
        "Without --repair nothing is changed.  Every file that a run keeps is read, which takes a "
        "while\nin a large home.  Ends with 1 if something is, or remains, wrong.\n\n"
        "example:\n  ftd fsck\n  ftd fsck --repair"
    )


def run(args: argparse.Namespace) -> int:
    """Examine the home."""
    home = home_of(args)
    with without_daemon(home) if args.repair else nullcontext():
        findings = _look(home, repair=args.repair)
    left = [finding for finding in findings if not finding.mended]
    if args.json:
        print_json({"clean": not left, "problems": [_as_json(one) for one in findings]})
    else:
        _show(home, findings, len(left))
    return 1 if left else 0


def _look(home: Home, *, repair: bool) -> list[_Finding]:
    with opened(home) as ledger:
        require_intact(home, ledger)
        return [
            _mend(check, problem) if repair else _Finding(check, problem, False, "")
            for check, problem in examine(home, ledger)
        ]


def _mend(check: str, problem: Problem) -> _Finding:
    if problem.mend is None:
        return _Finding(check, problem, False, "")
    try:
        problem.mend()
    except (FtdError, OSError) as error:
        return _Finding(check, problem, False, str(error))
    return _Finding(check, problem, True, "")


def _as_json(finding: _Finding) -> dict[str, object]:
    problem = finding.problem
    return {
        "check": finding.check,
        "where": problem.where,
        "text": problem.text,
        "fix": problem.fix,
        "mendable": problem.mend is not None,
        "mended": finding.mended,
    }


def _show(home: Home, findings: list[_Finding], num_left: int) -> None:
    from ftd.views.table import show, table

    rows = [(one.check, one.problem.where, one.problem.text, _what_to_do(one)) for one in findings]
    mendable = sum(one.problem.mend is not None and not one.mended for one in findings)
    if not num_left:
        note = f"{home.root}: {count(len(CHECKS), 'check')}, nothing is wrong"
    else:
        note = f"{home.root}: {count(num_left, 'problem')}"
        note += f"; 'ftd fsck --repair' mends {mendable} of them" if mendable else ""
    show([table("", ("check", "where", "found", "what to do"), rows, notes=(note,))])


def _what_to_do(finding: _Finding) -> str:
    if finding.mended:
        return f"mended: it {finding.problem.fix}"
    if finding.why_not:
        return f"could not be mended: {finding.why_not}"
    return f"--repair: it {finding.problem.fix}" if finding.problem.mend else finding.problem.fix
