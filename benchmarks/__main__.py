"""``python -m benchmarks [NAME...]``: run all benchmarks, or the named ones, and print figures."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence

from benchmarks.figures import Figure
from benchmarks.machine import described
from ftd.views.table import Table, show, table

BENCHMARKS = {
    # name: (module, one line)
    "finetune": ("finetune", "the job finetune against a plain training loop"),
    "frozen": ("frozen", "runs behind frozen layers that are computed once, or by others"),
    "short": ("short_runs", "a run of 20 steps against a script that does the same"),
    "tiny": ("tiny_runs", "runs that compute next to nothing: a worker each, or turns in one"),
    "enqueue": ("enqueue_grid", "ftd enqueue of a grid of 10,000 cells"),
    "probes": ("probe_grid", "a grid of 1,000 probes against a script that does the same"),
    "descriptors": ("descriptors", "neighbours in a pool against a matrix product"),
    "status": ("status", "ftd status with 100,000 runs in the ledger"),
    "help": ("startup", "ftd --help against a bare Python start"),
    "idle": ("idle", "the daemon when there is nothing to do"),
    "submit": ("submissions", "small specs through the Python API"),
}


def run(name: str, *, small: bool) -> list[Figure]:
    """The figures of one benchmark; `small` only shows that it works."""
    module = importlib.import_module(f"benchmarks.{BENCHMARKS[name][0]}")
    figures: list[Figure] = module.measure(module.SMALL if small else module.Size())
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks and print them; 0 whether goals are reached or not: figures are no tests."""
    args = _parser().parse_args(argv)
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    machine = described()
    found = {}
    for name in args.names or BENCHMARKS:
        load = os.getloadavg()[0]
        figures = run(name, small=args.small)
        found[name] = {"load_average": load, "figures": [figure.as_json() for figure in figures]}
        if not args.json:
            show([_table(name, figures, load)])
            sys.stdout.flush()
    if args.json:
        print(json.dumps({"machine": machine, "benchmarks": found}, indent=1))
    else:
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
    return 0


def _table(name: str, figures: Sequence[Figure], load: float) -> Table:
    return table(
        f"{name}: {BENCHMARKS[name][1]} (load average before: {load:.1f})",
        ("figure", ">median", ">range", ">n", "goal", "verdict"),
        [figure.as_row() for figure in figures],
    )


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:9} {line}" for name, (_, line) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what ftd costs.",
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes: shows that they work, measures nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
