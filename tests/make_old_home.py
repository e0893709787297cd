"""Writes tests/homes_of_old/schema-N with the ftd that is installed: run it once per new schema.

    python -m tests.make_old_home

The home holds a finished run and one that was interrupted in the middle; expected.json says what
both give when nothing interrupts them.  Names of this machine are replaced, byte for byte.
"""

from __future__ import annotations

import json
import platform
import shutil
import sqlite3
import tempfile
from pathlib import Path

from ftd.ledger.db import SCHEMA_VERSION
from tests.homes import LiveHome

FOLDER = Path(__file__).parent / "homes_of_old"
LEDGER, EXPECTED = "ledger.sql", "expected.json"
SPEC = """
experiment: old
job: drill
steps: 30
step_s: 0.02
factors: {score: [0.2]}
tune: {over: {noise: [0.05]}, select: val/score}
replicates: 2
seed: 4
"""


def main() -> None:
    """Make the home of the current schema."""
    kept = FOLDER / f"schema-{SCHEMA_VERSION}"
    kept.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        twin = LiveHome(Path(folder) / "twin")
        twin.enqueue(SPEC)
        assert twin.finish() == 0
        outcomes = {
            run["id"]: {"state_sha256": run["state_sha256"], "metrics": run["metrics"]}
            for run in twin.runs()
        }
        home = LiveHome(Path(folder) / "home", slots=1)
        _interrupt(home)
        names = _names(home)
        (kept / LEDGER).write_text(_renamed(_dump(home.home.ledger), names))
        shutil.copytree(home.root / "runs", kept / "runs")
    for path in kept.glob("runs/**/*.json*"):
        path.write_text(_renamed(path.read_text(), names))
    (kept / EXPECTED).write_text(json.dumps(outcomes, indent=1) + "\n")


def _interrupt(home: LiveHome) -> None:
    """Let the first run end, and kill everything in the middle of the second."""
    home.enqueue(SPEC)
    home.start_daemon()
    home.until_step(17, "r2")
    home.kill_daemon()
    home.kill_workers()


def _dump(ledger: Path) -> str:
    connection = sqlite3.connect(ledger)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return "\n".join([f"PRAGMA user_version={version};", *connection.iterdump(), ""])


def _names(home: LiveHome) -> dict[str, str]:
    """What tells of this machine -> what is kept instead."""
    host = platform.node()
    names = {str(home.root): "/srv/ftd", str(Path.cwd()): "/home/ann", platform.platform(): "Linux"}
    return names | {f'"host":"{host}"': f'"host":"{"lab".ljust(len(host), "-")[: len(host)]}"'}


def _renamed(text: str, names: dict[str, str]) -> str:
    """With other names of the same length: offsets into event streams stay true."""
    for name, other in names.items():
        text = text.replace(name, other.ljust(len(name), "-")[: len(name)])
    return text


if __name__ == "__main__":
    main()
