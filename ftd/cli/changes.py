"""``ftd changes``: what fine-tuning changed, layer by layer, across an experiment."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.errors import UnknownName, closest
from ftd.ledger.evidence import RunFacts, facts
from ftd.ledger.names import experiment_id
from ftd.ledger.places import outline, places
from ftd.ledger.reads import experiments
from ftd.stats.layers import MEASURES, profiles
from ftd.stats.subjects import Network

if TYPE_CHECKING:
    from ftd.ledger.db import Ledger

SHOWN = ("relative", "drift", "cka", "separability", "probe", "selectivity")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd changes``."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="e7 or a name, of the job changes")
    parser.add_argument(
        "--measure",
        metavar="NAME",
        action="append",
        help="show this measure, again for more (default: " + ", ".join(SHOWN) + ")",
    )
    add_json(parser)
    parser.epilog = (
        "Measures: " + ", ".join(MEASURES[:5]) + ",\n" + ", ".join(MEASURES[5:10]) + ",\n"
        + ", ".join(MEASURES[10:]) + ".\nPictures and arrays: `ftd show RUN` says where they "
        "are.\n\nexample:\n  ftd changes twin-4\n  ftd changes e7 --measure cka --json"
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Show the measures of an experiment."""
    from ftd.views import changes as view
    from ftd.views.table import show

    measures = args.measure or (MEASURES if args.json else SHOWN)
    for name in measures:
        if name not in MEASURES:
            near = closest(name, list(MEASURES))
            raise UnknownName(
                f"there is no measure {name}", fix=f"{near} Measures: {', '.join(MEASURES)}".strip()
            )
    with opened(home_of(args)) as ledger:
        number = experiment_id(ledger, args.experiment)
        (about,) = experiments(ledger, only=number)
        rows = places(ledger, number)
        ours = facts(ledger, [row.run.id for row in rows if row.run.metrics])
        found = profiles(rows, outline(ledger, number), measures, _order(ours.values()))
        doubts = _doubts(ledger, ours)
    if args.json:
        told = {"experiment": about.name, "id": f"e{about.id}", "measures": view.as_json(found)}
        print_json(told | {"doubts": doubts})
    else:
        show(view.tables(f"e{about.id} {about.name}", found, doubts))
    return 0


def _order(ours: Iterable[RunFacts]) -> list[str]:
    """The layers of the networks that were compared, from first to last."""
    from jobs.layers import numbered

    models = dict.fromkeys(Network.of(one).model for one in ours if "after" in one.inputs)
    return list(dict.fromkeys(layer for model in models for layer in numbered(model)))


def _doubts(ledger: Ledger, ours: Mapping[int, RunFacts]) -> list[str]:
    """Runs that compare with other weights than those that were fine-tuned, a line each."""
    ended = {
        one.run_id: int(one.inputs["after"]["run"].removeprefix("r"))
        for one in ours.values()
        if "after" in one.inputs
    }
    theirs = facts(ledger, list(ended.values()))
    networks = [(run, Network.of(ours[run]), Network.of(theirs[ended[run]])) for run in ended]
    return [
        f"r{run} compares r{ended[run]} with {before.weights}, but it started from {began.weights}"
        for run, before, began in networks
        if not before.is_like(began)
    ]
