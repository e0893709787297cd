"""Homes written under every schema open for ever, and what they had begun goes on."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from ftd.environment import library_versions
from ftd.ledger.db import SCHEMA_VERSION
from ftd.planning.plan import make_plan
from ftd.spec.experiment import parse
from tests.homes import LiveHome
from tests.make_old_home import EXPECTED, FOLDER, LEDGER

OLD = sorted(FOLDER.glob("schema-*"))


def restored(old: Path, root: Path) -> LiveHome:
    """A home as it was when it was kept."""
    home = LiveHome(root, slots=1)
    shutil.copytree(old / "runs", root / "runs")
    connection = sqlite3.connect(home.home.ledger)
    connection.executescript((old / LEDGER).read_text())
    connection.close()
    return home


def version(home: LiveHome) -> int:
    """The schema of a home's ledger."""
    connection = sqlite3.connect(home.home.ledger)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


def test_every_schema_has_its_home() -> None:
    """Whoever adds a schema keeps a home of it: python -m tests.make_old_home."""
    assert [int(old.name.removeprefix("schema-")) for old in OLD] == [*range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("old", OLD, ids=lambda old: old.name)
def test_a_home_of_old_opens_and_goes_on(old: Path, tmp_path: Path) -> None:
    """Its ledger is upgraded after a backup, the interrupted run resumes and equals its twin."""
    home = restored(old, tmp_path / "home")
    older = version(home) < SCHEMA_VERSION
    seen = home.ftd("status")
    assert seen.returncode == int(older), seen.stderr
    if older:
        assert "(Re)start the daemon" in seen.stderr
    assert home.finish() == 0, home.log()
    assert version(home) == SCHEMA_VERSION
    copies = list(home.home.backups.glob(f"*-before-schema-{SCHEMA_VERSION}.sqlite"))
    assert len(copies) == int(older)

    expected = json.loads((old / EXPECTED).read_text())
    found = {run["id"]: run for run in home.runs()}
    assert {name: run["state_sha256"] for name, run in found.items()} == {
        name: run["state_sha256"] for name, run in expected.items()
    }
    for name, run in expected.items():  # a later job may report more
        assert run["metrics"].items() <= found[name]["metrics"].items()
    first, second = home.json("show", "r2")["attempts"]
    assert first["outcome"] == "lost"
    assert second["outcome"] == "completed"
    assert second["resumed_from_step"] == first["checkpoint_step"] > 0
    (cell,) = home.json("summary", "old")["cells"]
    assert (cell["measured"], cell["runs"], cell["absent"]) == (2, ["r1", "r2"], {})
    assert "done" in home.ftd("status").stdout
    assert home.ftd("fsck").returncode == 0


@pytest.mark.parametrize("old", OLD, ids=lambda old: old.name)
def test_what_an_old_home_says_of_its_design(old: Path, tmp_path: Path) -> None:
    """Schema 1 knew plain factors only; since 2, what is tuned and every candidate is kept."""
    home = restored(old, tmp_path / "home")
    assert home.finish() == 0, home.log()
    tuned = home.json("summary", "old")["tuned"]
    if old.name == "schema-1":
        assert tuned is None
        return
    chosen = [one["chosen"] for one in tuned["choices"]]
    assert [(one["run"], one["tuned"]) for one in chosen] == [
        ("r1", {"noise": 0.05}),
        ("r2", {"noise": 0.05}),
    ]


@pytest.mark.parametrize("old", OLD, ids=lambda old: old.name)
def test_the_question_of_old_is_the_run_of_old(old: Path, tmp_path: Path) -> None:
    """A run's key stays what it was, while the libraries are those it was planned with."""
    home = restored(old, tmp_path / "home")
    connection = sqlite3.connect(home.home.ledger)
    kept = connection.execute("SELECT key, versions FROM run ORDER BY id").fetchall()
    (text,) = connection.execute("SELECT spec_text FROM experiment").fetchone()
    connection.close()
    if json.loads(kept[0][1]) != library_versions():
        pytest.skip("planned with other libraries")
    plan = make_plan(parse(text, "old.yaml"), tmp_path, device_kind="cpu")
    assert [run.key for run in plan.runs] == [key for key, _ in kept]


@pytest.mark.parametrize(
    "arguments", [["status"], ["runs"], ["cancel", "r2"], ["daemon", "--until-idle"]], ids=" ".join
)
def test_an_older_ftd_leaves_a_newer_ledger_alone(arguments: list[str], tmp_path: Path) -> None:
    """It says that ftd has to be upgraded, and changes nothing."""
    home = restored(OLD[-1], tmp_path / "home")
    connection = sqlite3.connect(home.home.ledger)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    before = home.home.ledger.read_bytes()
    done = home.ftd(*arguments)
    assert done.returncode == 1
    assert re.fullmatch(r"ftd: .* newer ftd \(schema 99, .*\)\. Upgrade ftd\n", done.stderr)
    assert home.home.ledger.read_bytes() == before
