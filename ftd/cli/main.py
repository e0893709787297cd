"""``ftd``: finds the verb, imports its module alone, and turns errors into exit codes.

Start-up time is part of the interface: nothing but argparse is imported here.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

VERBS = {
    # verb: (module, one line)
    "enqueue": ("enqueue", "turn a spec into runs"),
    "status": ("status", "what goes on now: devices, running runs, the queue"),
    "runs": ("runs", "list runs"),
    "show": ("show", "all about one run or experiment"),
    "logs": ("logs", "what a run printed"),
    "wait": ("wait", "wait until runs have ended"),
    "summary": ("summary", "which factor mattered, by how much, how sure we are"),
    "changes": ("changes", "what fine-tuning changed, layer by layer"),
    "advise": ("advise", "freeze or tune for a target: what the ledger knows"),
    "distances": ("distances", "how far targets are, and whether measures agree"),
    "export": ("export", "an experiment's runs or metrics as CSV or JSON"),
    "predict": ("predict", "what a run's network says about other images"),
    "cancel": ("change", "stop runs and take them off the queue"),
    "hold": ("change", "keep runs from being executed until released"),
    "release": ("change", "let held runs go on"),
    "retry": ("change", "queue failed, cancelled and held runs again"),
    "prioritise": ("prioritise", "let runs go before or after others"),
    "layers": ("layers", "the numbered layers of a network"),
    "schema": ("schema", "the JSON schema of specs"),
    "check-job": ("check_job", "test whether a job of your own keeps its contract"),
    "init": ("init", "make a home"),
    "daemon": ("daemon", "serve a home: give runs devices and execute them"),
    "service": ("service", "serve a home from boot on, through systemd"),
    "fsck": ("fsck", "examine a home at rest, and mend what can be mended safely"),
    "doctor": ("doctor", "check home, daemon, devices and installation"),
}
_EPILOG = """\
Experiments are written by name or as e7, runs as r123.
'ftd VERB --help' shows a verb's options and an example.

example:
  ftd init && ftd daemon &
  ftd enqueue examples/solar-cells.yaml
  ftd status
  ftd summary solar-cells
"""
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT
EXIT_BROKEN_PIPE = 141  # as a shell reports SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status: 0, 1 (something failed) or 2 (the input is wrong)."""
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read us has left.  Nothing may be flushed to that pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as leaving:  # argparse: help, version, usage
        return leaving.code if isinstance(leaving.code, int) else EXIT_USAGE


def _run(argv: list[str]) -> int:
    root = _root_parser()
    found = root.parse_args(argv)
    if found.verb is None:
        root.print_help()
        return 0
    from ftd.printable import is_utf8

    for text in argv:
        if not is_utf8(text):
            return _complain(f"the argument '{text}' is not UTF-8 text", EXIT_USAGE)
    module = importlib.import_module(f"ftd.cli.{VERBS[found.verb][0]}")
    parser = _parser(f"ftd {found.verb}", VERBS[found.verb][1])
    _add_home(parser, default=argparse.SUPPRESS)
    module.add_arguments(parser)
    args = parser.parse_args(found.rest, found)

    from ftd.errors import FtdError

    try:
        status: int = module.run(args)
    except FtdError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        from ftd.diskspace import is_storage_trouble

        if not is_storage_trouble(error):
            raise
        return _complain(f"the disk is full, failing or read-only ({error})", FtdError.exit_code)
    return status


def _complain(text: str, status: int) -> int:
    """Say on one line what went wrong; the exit status."""
    from ftd.printable import printable

    print(f"ftd: {printable(text)}", file=sys.stderr)
    return status


def _root_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    listed = "\n".join(f"  {verb:{width}}  {line}" for verb, (_, line) in VERBS.items())
    parser = _parser("ftd", "Fine-tuning experiments from a file: queued, executed, compared.")
    parser.usage = "ftd [--home DIR] [--config FILE] VERB ..."
    parser.epilog = f"verbs:\n{listed}\n\n{_EPILOG}"
    _add_home(parser, default=None)
    parser.add_argument("verb", nargs="?", choices=VERBS, metavar="VERB", help="what to do")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_home(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    group = parser.add_argument_group("home")
    group.add_argument(
        "--home", metavar="DIR", default=default, help="the home (else $FTD_HOME, else your own)"
    )
    group.add_argument(
        "--config", metavar="FILE", default=default, help="an ftd.toml to use instead of the home's"
    )
    group.add_argument("--version", action=_Version, help="print the version and leave")


class _Version(argparse.Action):
    """Print ftd's version and leave."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ftd import __version__

        print(f"ftd {__version__}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Quotes what was typed without letting it steer the terminal."""

    def error(self, message: str) -> NoReturn:
        from ftd.printable import printable

        super().error(printable(message))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as written; knows the width, which spares the default's import of shutil."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_width())


def _width() -> int:
    try:
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size().columns
    except (ValueError, OSError):
        columns = 80
    return max(columns - 2, 40)


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    described = description[:1].upper() + description[1:]
    return _Parser(prog=prog, description=described, formatter_class=_Formatter, allow_abbrev=False)
