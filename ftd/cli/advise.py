"""``ftd advise``: freeze or tune for a target, from what the ledger knows."""

from __future__ import annotations

import argparse
import json
import os
import re
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
from ftd.ledger.evidence import experiments_of, facts, models_of, num_replicates, runs_of
from ftd.ledger.names import is_run
from ftd.ledger.places import outline, places
from ftd.regular import full_path
from ftd.stats.advice import Question, advise
from ftd.stats.comparisons import Comparison, comparisons
from ftd.stats.known_distances import distances
from ftd.stats.subjects import Network, Target

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
        type=_metric,
        help=f"compare by this (default: {METRIC}, with several labels {METRIC_OF_SEVERAL})",
    )
    add_json(parser)
    parser.epilog = (
        "example:\n  ftd advise --target digits --model efficientnet_lite0 --per-class 20\n"
        "  ftd advise --target solar-cells.yaml --json"
    )


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text[:11]) <= 10**9):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 to 1000000000")
    return int(text)


def _metric(text: str) -> str:
    if not re.fullmatch("test/[a-z0-9_]+", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no metric of test images (test/top1)")
    return text


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
        start = _start(ledger, args.model, args.weights, known)
        replicates = _replicates(ledger, [start, *(one.network for one in known)])
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
    asked = Asked(section | where, labels, metric, is_given, sources, start, replicates)
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


def _start(
    ledger: Ledger, model: str | None, weights: str | None, known: Sequence[Comparison]
) -> Network:
    """The network that is asked about, where no runs tell which.

    Raises UnknownName for a name that nothing has, InputError for weights that there are not.
    """
    from jobs.records import record

    if model is not None:
        record(model)
    fitting = next((one.network for one in known if one.network.fits(model, weights)), None)
    if fitting is not None:
        return fitting
    if weights == "none":
        raise InputError(
            "without weights there is nothing to freeze",
            where="--weights",
            fix="Name published ones (imagenet), a run or an experiment",
        )
    if weights not in (None, "imagenet"):
        kept = models_of(ledger, str(weights))
        if not kept:
            raise InputError(f"{weights} is of no network", where="--weights")
        if model not in (None, *kept):
            raise InputError(
                f"{weights} is of {', '.join(kept)}, not of {model}",
                where="--weights",
                fix=f"Use --model {kept[0]}, or other weights",
            )
        return Network(model or kept[0], str(weights), written={"run": weights})
    model, weights = model or "resnet18", weights or "imagenet"
    if weights == "imagenet" and not record(model).exists:
        raise InputError(
            f"there are no published weights of {model}",
            where="--model",
            fix="Say which it starts from: --weights RUN or --weights EXPERIMENT",
        )
    return Network(model, weights, written=weights)


def _replicates(ledger: Ledger, networks: Sequence[Network]) -> dict[str, int]:
    """How many replicates the experiments have that `networks` start from."""
    written = [one.written for one in networks if isinstance(one.written, Mapping)]
    named = {str(weights["run"]) for weights in written if "run" in weights}
    return {name: num_replicates(ledger, name) for name in named if not is_run(name)}


# --- the target -------------------------------------------------------------------------------


def _section(text: str, folder: str | None) -> tuple[dict[str, Any], Path]:
    """The section ``target`` that is meant, and the folder its paths start from."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if folder is not None:
            raise InputError("--folder does not go with a YAML file", fix="Write it in the file")
        return _from_file(text), path.absolute().parent
    is_path = folder is None and text.startswith((os.sep, f".{os.sep}", f"..{os.sep}"))
    if is_path and not path.is_dir():
        raise InputError(f"no folder {text}", where="--target", fix="Check the path")
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
