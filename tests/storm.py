"""A kill storm: seeded random SIGKILLs of clients, daemon, workers, their helpers and everything.

    python -m tests.storm --seed 1 --kills 200

Experiments are enqueued while it rages.  Afterwards the home is left in peace until it is idle, and
every run must have ended once, equal to an undisturbed twin, with nothing left behind.  The last
line is the verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ftd.ledger.db import open_ledger
from ftd.ledger.models import Lease
from ftd.process import send_signal
from tests.homes import FTD, LiveHome, helpers_of, outcome_of, serving

DRILL = """
experiment: storm{number}
job: drill
steps: {steps}
step_s: 0.02
children: {children}
replicates: 4
seed: {number}
"""
REAL = """
experiment: real{number}
job: finetune
model: {{name: resnet18, weights: none}}
layers: "R(1-last)"
target: {{dataset: digits, decode_size: 28, val_per_class: 3, per_class: 4}}
train: {{epochs: 5, batch_size: 8, lr: 0.01, flip: true}}
seed: {number}
"""
VICTIMS = ("daemon", "worker", "workers", "helpers", "everything")  # and clients, at random
PAUSE_S = (0.05, 1.6)  # between two kills
END_S = 3600.0  # for all that is left at the end, on a machine with other work
WAITING = 6  # unfinished runs below which something new is enqueued


@dataclass
class Verdict:
    """What a storm did and what it left."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    attempts: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    orphans: list[int] = field(default_factory=list)
    leases: int = 0
    ledger: str = ""

    @property
    def good(self) -> bool:
        """Whether every promise held."""
        bad = self.lost or self.doubled or self.differing or self.orphans or self.leases
        return not bad and self.ledger == "ok"

    def line(self) -> str:
        """One line with the figures."""
        kinds = ", ".join(f"{number} {name}" for name, number in sorted(self.kills.items()))
        return (
            f"storm {'held' if self.good else 'BROKE THROUGH'}: seed {self.seed}, "
            f"{self.kills.total()} kills ({kinds}), {self.runs} runs in {self.attempts} attempts: "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.differing)} differing, "
            f"{len(self.orphans)} orphans, {self.leases} leases left, ledger {self.ledger}"
        )


def storm(root: Path, *, seed: int, kills: int, real: int) -> Verdict:
    """Raise a storm of `kills` kills below `root`; `real` of its experiments are fine-tuning."""
    draw = random.Random(seed)
    # A run whose helper is killed fails by itself, time and again: not for lack of luck.
    home = LiveHome(root / "home", every_steps=4, failed=kills, quick_s=0.0)
    verdict = Verdict(seed)
    specs = [REAL.format(number=seed * 1000 + number) for number in range(real)]
    enqueued: list[str] = []
    acknowledged: set[str] = set()
    with serving(home):
        _rage(home, draw, kills, specs, enqueued, acknowledged, verdict)
    while home.finish(END_S) == -signal.SIGKILL:
        pass
    _judge(home, LiveHome(root / "twin"), enqueued, acknowledged, verdict)
    return verdict


def _rage(
    home: LiveHome,
    draw: random.Random,
    kills: int,
    specs: list[str],
    enqueued: list[str],
    acknowledged: set[str],
    verdict: Verdict,
) -> None:
    """Enqueue and kill until there were `kills` kills."""
    while verdict.kills.total() < kills:
        if specs or _unfinished(home) < WAITING:
            spec = specs.pop() if specs else _drill(draw, len(enqueued))
            enqueued.append(spec)
            acknowledged |= _enqueue(home, spec, draw, verdict)
        time.sleep(draw.uniform(*PAUSE_S))
        _strike(home, draw, verdict)


def _drill(draw: random.Random, number: int) -> str:
    children = draw.choice((0, 2))
    return DRILL.format(number=number, steps=draw.randint(10, 120), children=children)


def _enqueue(home: LiveHome, spec: str, draw: random.Random, verdict: Verdict) -> set[str]:
    """Enqueue, sometimes killing the client; the runs that were acknowledged."""
    client = subprocess.Popen(
        [*FTD, "enqueue", "-", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FTD_HOME": str(home.root)},
    )
    assert client.stdin is not None
    client.stdin.write(spec)
    client.stdin.close()
    client.stdin = None
    if draw.random() < 0.3:
        time.sleep(draw.uniform(0.1, 0.6))
        if client.poll() is None:
            client.kill()
            verdict.kills["client"] += 1
    out, _ = client.communicate()
    return set(json.loads(out)["runs"]) if client.returncode == 0 else set()


def _strike(home: LiveHome, draw: random.Random, verdict: Verdict) -> None:
    victim = draw.choice(VICTIMS)
    if victim in ("daemon", "everything"):
        home.kill_daemon()
    if victim in ("workers", "everything"):
        struck = home.kill_workers()
    elif victim == "worker":
        struck = sum(send_signal(worker, signal.SIGKILL) for worker in home.workers()[:1])
    elif victim == "helpers":
        helpers = [helper for worker in home.workers() for helper in helpers_of(worker)]
        struck = sum(send_signal(helper, signal.SIGKILL) for helper in helpers)
    else:
        struck = 1
    if victim in ("daemon", "everything"):
        home.start_daemon()
    if struck or victim == "everything":
        verdict.kills[victim] += 1


def _unfinished(home: LiveHome) -> int:
    if not home.home.ledger.exists():
        return 0
    counts = home.json("status")["counts"]
    return int(counts["queued"] + counts["running"])


def _judge(
    home: LiveHome, twin: LiveHome, specs: Sequence[str], acknowledged: set[str], verdict: Verdict
) -> None:
    """Compare with a home in which nothing was killed."""
    runs = {run["id"]: run for run in home.runs()}
    keys = {}
    for run_id, run in runs.items():
        shown = home.json("show", run_id)
        keys[run_id] = shown["provenance"]["key"]
        outcomes = [attempt["outcome"] for attempt in shown["attempts"]]
        verdict.attempts += len(outcomes)
        if outcomes.count("completed") > 1:
            verdict.doubled.append(run_id)
        if run["state"] != "done":
            verdict.lost.append(run_id)
    verdict.runs = len(runs)
    verdict.lost += sorted(acknowledged - set(runs))

    for spec in specs:
        twin.enqueue(spec)
    assert twin.finish(END_S) == 0, twin.log()
    expected = {
        twin.json("show", run_id)["provenance"]["key"]: found
        for run_id, found in outcome_of(twin).items()
    }
    found = outcome_of(home)
    verdict.differing = [run for run in runs if found[run] != expected.get(keys[run])]
    verdict.orphans = _processes_of(home.root)
    ledger = open_ledger(home.home)
    verdict.leases = len(ledger.values(Lease.select(Lease.id).where(Lease.released_at.is_null())))
    verdict.ledger = str(ledger.db.execute_sql("pragma integrity_check").fetchone()[0])
    ledger.close()


def _processes_of(root: Path) -> list[int]:
    """Processes that still work below `root`: workers stand there, and so do their helpers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # gone by now, or somebody else's
            if folder.readlink().is_relative_to(root.resolve()):
                found.append(int(folder.parent.name))
    return found


def main() -> int:
    """Raise one storm and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--real", type=int, default=4, help="fine-tuning experiments among them")
    parser.add_argument("--keep", type=Path, help="a folder to keep the homes in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ftd-storm-") as folder:
        root = args.keep or Path(folder)
        verdict = storm(root, seed=args.seed, kills=args.kills, real=args.real)
    for name in ("lost", "doubled", "differing", "orphans"):
        if found := getattr(verdict, name):
            print(f"{name}: {found}")
    print(verdict.line())
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
