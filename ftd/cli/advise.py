"""``ftd advise``: freeze or tune for a target, from what the ledger knows."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd.cli.home import home_of, opened
from ftd.cli.output import add_json, print_json
from ftd.environment import inheritable
from ftd.errors import FtdError, InputError
from ftd.ledger.evidence import experiments_of, facts, runs_of
from ftd.ledger.places import outline, places
from ftd.regular import full_path
from ftd.stats.advice import Question, advise
from ftd.stats.comparisons import Comparison, comparisons
from ftd.stats.known_distances import distances
from ftd.stats.subjects import Target

if TYPE_CHECKING:
    from ftd.ledger.db import Ledger
    from jobs.params.target import TargetParams

METRIC = "test/balanced_accuracy"  # of any number of classes, equally frequent or not
METRIC_OF_SEVERAL = "test/map"  # where an image has several labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd advise``."""
    parser.add_argument(
        "--target",
        metavar="DATASET",
        required=True,
        help="a dataset by name (digits, torchvision/NAME), a folder with a folder of images per "
        "class (./photos), or a YAML file with a section target, as specs have one",
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="where the dataset is, for those that need a folder"
    )
    parser.add_argument("--model", metavar="NAME", help="advice for this network alone")
    parser.add_argument(
        "--weights", metavar="NAME", help="with these weights alone: imagenet, a run, an experiment"
    )
    parser.add_argument(
        "--per-class",
        metavar="N",
        type=_count,
        help="training images per class (default: those the target has)",
    )
    parser.add_argument(
        "--metric",
        metavar="TEST/NAME",
        help=f"compare by this (default: {METRIC}, with several labels {METRIC_OF_SEVERAL})",
    )
    add_json(parser)
    parser.epilog = (
        "example:\n  ftd advise --target digits --model mini8 --per-class 20\n"
        "  ftd advise --target solar-cells.yaml --json"
    )


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10**9:
        raise ValueError
    return number


def run(args: argparse.Namespace) -> int:
    """Say what is known, and what to run to know more."""
    from ftd.views import advice as view
    from ftd.views.advice_json import as_json
    from ftd.views.advice_specs import Asked
    from ftd.views.table import show

    section, base = _section(args.target, args.folder)
    target = _resolved(section, base)
    metric = args.metric or (METRIC_OF_SEVERAL if target.multi_label else METRIC)
    with opened(home_of(args)) as ledger, ledger.snapshot():
        known = _comparisons(ledger, metric)
        measured = distances(list(facts(ledger, runs_of(ledger, "distance")).values()))
        sources = _sources(ledger, known)
    labels = _labels(target)
    question = Question(
        Target.of(target.model_dump(mode="json")),
        args.per_class or statistics.fmean(labels["train"]),
        args.model,
        args.weights,
    )
    found = advise(question, known, measured)
    where = {name: getattr(target, name) for name in ("folder", "file") if name in section}
    is_given = args.per_class is not None
    asked = Asked(section | where, labels, metric, is_given, sources)
    if args.json:
        print_json(as_json(found, asked))
    else:
        show(view.tables(found, asked))
    return 0


def _comparisons(ledger: Ledger, metric: str) -> list[Comparison]:
    found, seen = [], set[tuple[int, int]]()
    for number in experiments_of(ledger, "finetune"):
        rows = places(ledger, number)
        about = facts(ledger, [row.run.id for row in rows if row.run.metrics])
        found += comparisons(number, rows, outline(ledger, number), about, metric, seen)
    return found


def _sources(ledger: Ledger, known: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """What networks were pretrained on, where runs of this home did that."""
    from jobs.params.target import TargetParams

    found = {}
    for network in {one.network for one in known if one.network.producers}:
        run = int(min(network.producers).removeprefix("r"))
        params = facts(ledger, [run])[run].params
        section = params.get("source") or params.get("target")
        if isinstance(section, Mapping):
            whole = TargetParams.model_validate(section)
            found[str(network)] = whole.model_dump(mode="json", exclude_defaults=True)
    return found


# --- the target -------------------------------------------------------------------------------


def _section(text: str, folder: str | None) -> tuple[dict[str, Any], Path]:
    """The section ``target`` that is meant, and the folder its paths start from."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if folder is not None:
            raise InputError("--folder does not go with a YAML file", fix="Write it in the file")
        return _from_file(text), path.absolute().parent
    if folder is None and os.sep in text and path.is_dir():
        return {"dataset": "folder", "folder": text}, Path.cwd()
    section = {"dataset": text} | ({"folder": folder} if folder is not None else {})
    return section, Path.cwd()


def _from_file(text: str) -> dict[str, Any]:
    from ftd.cli.enqueue import read_spec
    from ftd.spec.includes import fragments, merged

    content, source, base = read_spec(text)
    section = merged(content, source, fragments(content, source, base)).plain().get("target")
    if not isinstance(section, Mapping):
        raise InputError("there is no section target", where=source)
    return dict(section)


def _resolved(section: Mapping[str, Any], base: Path) -> TargetParams:
    from pydantic import ValidationError

    from ftd.explain import explain
    from jobs import targets
    from jobs.params.target import TargetParams

    try:
        found = TargetParams.model_validate(section)
    except ValidationError as error:
        told = explain(error, dict(section), TargetParams)
        where = ".".join(map(str, ("target", *told.path)))
        raise InputError(told.what, where=where, fix=told.fix) from error
    return targets.resolve(found, full_path(str(base), Path.cwd()))


def _labels(target: TargetParams) -> Mapping[str, Any]:
    """What the process that may load torch says; InputError when it refuses."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jobs.inspection.labels"],
        input=json.dumps(target.model_dump(mode="json")).encode(),
        capture_output=True,
        env=inheritable(os.environ) | {"CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise FtdError(f"counting labels failed: {said[-1] if said else 'it said nothing'}")
    found: Mapping[str, Any] = json.loads(done.stdout)
    if "refused" in found:
        raise InputError(found["refused"], where="target", fix=found["fix"])
    return found
