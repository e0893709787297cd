"""``ftd enqueue``: a spec goes in, runs come out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ftd.cli.home import home_of
from ftd.cli.output import add_json, print_json
from ftd.daemon.presence import daemon_identity
from ftd.daemon.submit import EnqueueRequest, asking_user, preview, submit
from ftd.errors import InputError, SpecError
from ftd.layout import Home
from ftd.ledger.enqueue import Enqueued
from ftd.printable import is_utf8
from ftd.regular import read_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd enqueue``."""
    parser.add_argument("spec", metavar="SPEC", help="the spec's file, or - for standard input")
    parser.add_argument(
        "--dry-run", action="store_true", help="show cells, runs, and what is known; write nothing"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="set one key of the spec, for instance train.epochs=2",
    )
    parser.add_argument("--priority", type=int, metavar="N", help="higher runs first (default 0)")
    parser.add_argument(
        "--fresh", action="store_true", help="run everything anew, even what is known already"
    )
    add_json(parser)
    parser.epilog = (
        "example:\n"
        "  ftd enqueue solar-cells.yaml --dry-run\n"
        "  ftd enqueue solar-cells.yaml --set train.epochs=2 --priority 5"
    )


def run(args: argparse.Namespace) -> int:
    """Enqueue, or show what enqueueing would do."""
    home = home_of(args)
    request = _request(args)
    if args.dry_run:
        return _preview(home, request, as_json=args.json)
    enqueued = submit(home, request, asking_user())
    assert isinstance(enqueued, Enqueued), "an enqueue request is answered so"
    if args.json:
        print_json(_as_json(enqueued))
    else:
        print(_told(enqueued, home))
    return 0


def _request(args: argparse.Namespace) -> EnqueueRequest:
    from ftd.spec.includes import fragments

    text, source, base = read_spec(args.spec)
    if not is_utf8(str(base)):  # it goes into the ledger
        raise InputError(f"the name of the folder {base} is not UTF-8", fix="Rename it")
    return EnqueueRequest(
        fragments=fragments(text, source, base),
        spec_text=text,
        source=source,
        base=str(base),
        overrides=_overrides(args.overrides),
        priority=args.priority,
        fresh=args.fresh,
    )


def read_spec(spec: str) -> tuple[str, str, Path]:
    """Text, name for messages, and the folder that relative paths start from.

    Raises SpecError when it cannot be read.
    """
    from ftd.spec.yamltext import MAX_BYTES

    piped = spec == "-"
    source = "standard input" if piped else spec
    try:
        # one byte too many is refused when it is parsed
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if piped else read_bytes(Path(spec), MAX_BYTES)
        base = Path.cwd() if piped else Path(spec).absolute().parent
        return data.decode("utf-8-sig"), source, base
    except OSError as error:
        raise SpecError(
            f"cannot read it ({error.strerror})", where=source, fix="Check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError("not UTF-8 text", where=source, fix="Save it as UTF-8") from error


def _overrides(given: list[str]) -> dict[str, str]:
    overrides: dict[str, str] = {}
    for text in given:
        path, equals, value = text.partition("=")
        if not path or not equals:
            raise InputError(
                f"--set {text}: no PATH=VALUE", fix="Write for instance --set train.epochs=2"
            )
        if path in overrides:
            raise InputError(f"--set {path} is given twice", fix="Keep one of them")
        overrides[path] = value
    return overrides


def _preview(home: Home, request: EnqueueRequest, *, as_json: bool) -> int:
    from ftd.views import preview as view
    from ftd.views.table import show

    found = preview(home, request)
    if as_json:
        print_json(view.as_json(found.plan, found.known, found.estimate))
    else:
        show(view.tables(found.plan, found.known, found.estimate))
    return 0


def _as_json(enqueued: Enqueued) -> dict[str, object]:
    return {
        "experiment": enqueued.experiment,
        "id": f"e{enqueued.id}",
        "revision": enqueued.revision,
        "runs": [f"r{run}" for run in enqueued.runs],
        "new": enqueued.new,
        "shared": enqueued.shared,
        "done": enqueued.done,
        "requeued": enqueued.requeued,
    }


def _told(enqueued: Enqueued, home: Home) -> str:
    from ftd.views.phrases import count, run_ids

    parts = [f"{enqueued.new:,} new"]
    if enqueued.shared:
        parts.append(f"{enqueued.shared:,} known")
    if enqueued.done:
        parts.append(f"{enqueued.done:,} of them done")
    if enqueued.requeued:
        parts.append(f"{enqueued.requeued:,} queued again")
    revision = f" (revision {enqueued.revision})" if enqueued.revision > 1 else ""
    known = "; this spec was enqueued before" if enqueued.known else ""
    runs = count(len(enqueued.runs), "run")
    lines = [
        f"e{enqueued.id} {enqueued.experiment}{revision}: {runs}, {', '.join(parts)}{known}: "
        + run_ids(enqueued.runs)
    ]
    if enqueued.done == len(enqueued.runs):
        lines.append(f"nothing is left to do; next: ftd summary {enqueued.experiment}")
    elif daemon_identity(home) is None:
        lines.append("no daemon is running here; next: ftd daemon")
    else:
        lines.append(f"next: ftd status, then ftd summary {enqueued.experiment}")
    return "\n".join(lines)
