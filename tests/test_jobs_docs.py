"""The page for authors of jobs: its examples are executed, its reference is complete."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from ftd.job import Context, Job
from tests.homes import LiveHome, outcome_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "jobs.md").read_text()
NUMBERS = [1.0, 2.0, 4.0, 8.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all files that the page shows."""
    made = tmp_path / "lab"
    made.mkdir()
    for name, text in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, flags=re.DOTALL):
        (made / name).write_text(text)
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL):
        (made / f"{text.split()[1]}.yaml").write_text(text)
    (made / "numbers.txt").write_text("\n".join(map(str, NUMBERS)))
    return made


def enqueued(home: LiveHome, spec: Path) -> None:
    """Enqueue a spec's file."""
    done = home.ftd("enqueue", str(spec))
    assert done.returncode == 0, done.stderr


def test_the_examples_are_executed(tmp_path: Path, folder: Path) -> None:
    """Both of the page's specs run to their end and say what they should."""
    home = LiveHome(tmp_path / "home")
    enqueued(home, folder / "bootstrap.yaml")
    enqueued(home, folder / "legacy.yaml")
    assert home.finish() == 0, home.log()
    found = outcome_of(home)
    assert len(found) == 8
    spreads = [run["metrics"]["test/spread"] for run in home.runs("bootstrap")]
    expected = statistics.pstdev(NUMBERS) / len(NUMBERS) ** 0.5
    assert len({*spreads}) == 4 and spreads == pytest.approx([expected] * 4, rel=0.3)
    losses = [run["metrics"]["test/loss"] for run in home.runs("legacy")]
    for slow, fast in (losses[::2], losses[1::2]):  # by replicate: five steps of either lr
        assert slow / fast == pytest.approx((0.8 / 0.4) ** 10)
    summary = json.dumps(home.json("summary", "bootstrap"))
    assert "test/spread" in summary and "rounds" in summary


def test_the_example_of_a_test_passes(folder: Path) -> None:
    """Authors can copy it, and it says so when the job breaks its contract."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bootstrap.py"]
    job = folder / "bootstrap.py"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    job.write_text(job.read_text().replace("context.restore()", "None"))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1 and "it begins again" in done.stdout


def members(kind: type) -> list[str]:
    """What a class has to offer."""
    return [name for name in {**vars(kind), **kind.__annotations__} if not name.startswith("_")]


@pytest.mark.parametrize("kind", [Job, Context])
def test_the_reference_is_complete(kind: type) -> None:
    """Every hook of a job and everything a context offers has its row."""
    named = set(re.findall(r"^\| `(\w+)", PAGE, flags=re.MULTILINE))
    assert [name for name in members(kind) if name not in named] == []
