"""``ftd predict``: what the network that a run kept says about images of yours."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ftd.cli.home import home_of, opened
from ftd.cli.output import print_json
from ftd.environment import inheritable
from ftd.errors import FtdError, InputError
from ftd.printable import printable

WEIGHTS = "weights.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``ftd predict``."""
    parser.add_argument("run", metavar="RUN", help="a run that is done, r12")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, or folders of them"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON, for scripts")
    shape.add_argument("--csv", action="store_true", help="print a CSV table of all probabilities")
    parser.epilog = (
        "Images are prepared as the run prepared its own.  It computes on the CPU and takes no\n"
        "device from runs.  If an image cannot be read, the exit status is 1.\n\n"
        "example:\n  ftd predict r12 new-cells/ --csv > predictions.csv"
    )


def run(args: argparse.Namespace) -> int:
    """Print predictions."""
    request = _request(args)
    images = [path for given in args.images for path in _images(Path(given))]
    answers = _answers(request | {"images": list(map(str, images))})
    head = next(answers)
    if args.json:
        found = [_as_json(head, answer) for answer in answers]
        print_json(found)
        unreadable = sum("unreadable" in one for one in found)
    else:
        shown = _Shown(answers)
        (_print_csv if args.csv else _print_table)(head, shown)
        unreadable = shown.unreadable
    return 1 if unreadable else 0


class _Shown:
    """The answers that can be shown; those about unreadable images go to standard error."""

    def __init__(self, answers: Iterator[Mapping[str, Any]]) -> None:
        self._answers = answers
        self.unreadable = 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for answer in self._answers:
            if "unreadable" in answer:
                self.unreadable += 1
                text = f"cannot read {answer['image']}: {answer['unreadable']}"
                print(f"ftd: {printable(text)}", file=sys.stderr)
            else:
                yield answer


def _request(args: argparse.Namespace) -> dict[str, Any]:
    """The run's weights, verified, and how to compute with them."""
    from ftd.ledger.details import run_details
    from ftd.ledger.names import run_id
    from ftd.worker.kept import kept_file

    home = home_of(args)
    with opened(home) as ledger:
        number = run_id(ledger, args.run)
        found = run_details(ledger, number)["provenance"]
    weights = kept_file(home.root / "runs", f"r{number}", found["key"], WEIGHTS)
    return {
        "weights": str(weights.absolute()),
        "numerics": found["numerics"],
        "threads": found["threads"],
    }


def _images(given: Path) -> list[Path]:
    """A file, or all images below a folder, sorted by path."""
    from jobs.data.files import SUFFIXES, images_below

    if given.is_file():
        return [given]
    if not given.is_dir():
        raise InputError(f"there is no file or folder {given}", fix="Check the path")
    try:
        found = sorted(map(Path, images_below(given)))
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename} ({error.strerror})", fix="Check its permissions"
        ) from error
    if not found:
        raise InputError(
            f"there are no images in {given}", fix=f"Known file types: {' '.join(SUFFIXES)}"
        )
    return found


def _answers(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the process that has torch says, a line at a time; the first one names the classes.

    Raises InputError when it refuses, FtdError when it ends without having answered.
    """
    variables = inheritable(os.environ) | {
        "CUDA_VISIBLE_DEVICES": "",  # devices are the daemon's to give
        "OMP_NUM_THREADS": str(request["threads"]),
    }
    command = [sys.executable, "-P", "-m", "jobs.measure.predict"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=variables
        )
        with process:
            try:
                yield from _conversation(process, request)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            last = said[-1] if said else "it said nothing"
            raise FtdError(f"predicting failed (status {process.returncode}): {last}")


def _conversation(
    process: subprocess.Popen[bytes], request: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as stream:  # its end tells why
        stream.write(json.dumps(request).encode())
    for line in process.stdout:
        answer = json.loads(line)
        if "refused" in answer:
            raise InputError(answer["refused"], fix=answer["fix"])
        yield answer


def predicted(head: Mapping[str, Any], probabilities: Sequence[float]) -> str:
    """The class with the largest probability; with several labels, all above one half."""
    names = head["class_names"]
    if head["multi_label"]:
        return ";".join(name for name, p in zip(names, probabilities, strict=True) if p > 0.5)
    return str(names[max(range(len(names)), key=probabilities.__getitem__)])


def _as_json(head: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    if "unreadable" in answer:
        return dict(answer)
    probabilities = answer["probabilities"]
    return {
        "image": answer["image"],
        "predicted": predicted(head, probabilities),
        "probabilities": dict(zip(head["class_names"], probabilities, strict=True)),
    }


def _print_csv(head: Mapping[str, Any], answers: _Shown) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["image", "predicted", *(f"p({name})" for name in head["class_names"])])
    for answer in answers:
        said = answer["probabilities"]
        shares = (f"{p:.6g}" for p in said)
        table.writerow([printable(answer["image"]), predicted(head, said), *shares])


def _print_table(head: Mapping[str, Any], answers: _Shown) -> None:
    from ftd.views.table import show, table

    rows = [
        [answer["image"], predicted(head, said), f"{max(said):.3f}"]
        for answer in answers
        for said in [answer["probabilities"]]
    ]
    if rows:
        show([table("", ("image", "predicted", ">probability"), rows)])
