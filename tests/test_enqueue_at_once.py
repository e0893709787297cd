"""Many people enqueue at the same moment into a home that does not exist yet."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.homes import DEADLINE_S, FTD, LiveHome

SPEC = "{{experiment: mine{number}, job: drill, steps: {steps}, replicates: 2}}\n"


def test_fifty_concurrent_enqueues_lose_nothing(tmp_path: Path) -> None:
    """Every acknowledged run exists once, shared ones are shared, and nobody sees an error."""
    root = tmp_path / "not-there-yet"
    children = []
    for number in range(50):
        child = subprocess.Popen(
            [*FTD, "enqueue", "-", "--json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "FTD_HOME": str(root)},
        )
        assert child.stdin is not None
        child.stdin.write(SPEC.format(number=number, steps=1 + number % 40))
        child.stdin.close()
        child.stdin = None
        children.append(child)
    acknowledged = []
    for child in children:
        out, err = child.communicate(timeout=DEADLINE_S)
        assert child.returncode == 0, err
        assert err == ""
        acknowledged.append(json.loads(out))

    home = LiveHome(root)
    assert len({found["id"] for found in acknowledged}) == 50
    runs = {run["id"]: run for run in home.runs()}
    assert set(runs) == {run for found in acknowledged for run in found["runs"]}
    assert len(runs) == 80, "40 different lengths x 2 replicates, however many asked for each"
    assert sum(found["new"] for found in acknowledged) == 80
    for found in acknowledged:
        assert found["new"] + found["shared"] == 2
        for run in found["runs"]:
            assert found["experiment"] in runs[run]["experiments"]
    assert home.finish() == 0
    assert {run["state"] for run in home.runs()} == {"done"}
    assert {run["attempts"] for run in home.runs()} == {1}
