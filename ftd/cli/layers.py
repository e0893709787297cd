"""``ftd layers``: the numbered layers of a network, and what a treatment does to each."""

from __future__ import annotations

import argparse

from ftd.cli.output import add_json, print_json
from ftd.errors import InputError, UnknownName


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd layers``."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a network's name (default: list all names)"
    )
    parser.add_argument(
        "--list",
        nargs="?",
        const="*",
        metavar="PATTERN",
        help="list the names that hold this text or fit this pattern, such as '*net*_b?'; "
        "timm's where it begins with timm/",
    )
    parser.add_argument("--treat", metavar="LAYERS", help="also show what this does to each layer")
    add_json(parser)
    parser.epilog = (
        "F freezes layers, FT fine-tunes them, R re-initialises them.\n\n"
        "example:\n"
        "  ftd layers alexnet --treat 'F(1-3)FT(4-7)R(8)'\n"
        "  ftd layers --list 'timm/*convnext*'"
    )


def run(args: argparse.Namespace) -> int:
    """Print a network's layers, or the networks there are."""
    from ftd.catalog import check_not_hidden

    check_not_hidden()
    if args.model is None:
        _print_names(args.list or "*", as_json=args.json)
    elif args.list is not None:
        raise InputError(f"--list and {args.model} at once", fix="Give one of them")
    else:
        _print_layers(args.model, args.treat, as_json=args.json)
    return 0


def _print_names(pattern: str, *, as_json: bool) -> None:
    from jobs.layers import names_like

    names = names_like(pattern)
    if as_json:
        print_json(list(names))
    elif names:
        print("\n".join(names))
    else:
        raise UnknownName(f"no network's name fits '{pattern}'", fix="See `ftd layers --list`")


def _print_layers(model: str, treat: str | None, *, as_json: bool) -> None:
    from ftd.views.table import show, table
    from jobs.layers import canonical, numbered, treatments

    names = numbered(model)
    chosen = None if treat is None else [str(one) for one in treatments(treat, len(names))]
    spelled = None if treat is None else canonical(treat, len(names))
    if as_json:
        layers = [
            {"number": index + 1, "name": name, "treatment": chosen[index] if chosen else None}
            for index, name in enumerate(names)
        ]
        print_json({"model": model, "layers": layers, "treatments": spelled})
        return
    columns = [
        [str(index + 1) for index in range(len(names))],
        names,
        *([chosen] if chosen else []),
    ]
    headings = (">layer", "name", "treatment")[: len(columns)]
    title = f"{model} {spelled}" if spelled else model
    show([table(title, headings, zip(*columns, strict=True))])
