"""``ftd layers``: the numbered layers of a network, and what a treatment does to each."""

from __future__ import annotations

import argparse

from ftd.cli.output import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd layers``."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a network's name (default: list all names)"
    )
    parser.add_argument("--treat", metavar="LAYERS", help="also show what this does to each layer")
    add_json(parser)
    parser.epilog = (
        "F freezes layers, FT fine-tunes them, R re-initialises them.\n\n"
        "example:\n  ftd layers alexnet --treat 'F(1-3)FT(4-7)R(8)'"
    )


def run(args: argparse.Namespace) -> int:
    """Print a network's layers, or the networks there are."""
    from ftd.catalog import check_not_hidden
    from ftd.views.table import show, table

    check_not_hidden()
    from jobs import layers

    if args.model is None:
        names = layers.model_names()
        if args.json:
            print_json(list(names))
        else:
            print("\n".join(names))
        return 0
    names = layers.numbered(args.model)
    canonical, chosen = None, ["" for _ in names]
    if args.treat is not None:
        canonical = layers.canonical(args.treat, len(names))
        chosen = [str(treatment) for treatment in layers.treatments(args.treat, len(names))]
    if args.json:
        print_json(
            {
                "model": args.model,
                "layers": [
                    {"number": number, "name": name, "treatment": treatment or None}
                    for number, (name, treatment) in enumerate(zip(names, chosen, strict=True), 1)
                ],
                "treatments": canonical,
            }
        )
        return 0
    rows = [
        (str(number), name, *((treatment,) if canonical else ()))
        for number, (name, treatment) in enumerate(zip(names, chosen, strict=True), 1)
    ]
    headings = (">layer", "name", *(("treatment",) if canonical else ()))
    title = f"{args.model} {canonical}" if canonical else args.model
    show([table(title, headings, rows)])
    return 0
