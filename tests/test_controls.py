"""The list of negative controls fits the tree; `make controls` carries them out."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.control_list import ROOT, Change, Control, controls
from tests.controls import unknown

CONTROLS = controls()
# Rows whose mechanism cannot be taken out by changing a few lines, and why.
WITHOUT: dict[str, str] = {}


def rows() -> list[str]:
    """What stands first in each row of the table."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    table = text.partition("\n## The table\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [line.split(" | ")[0].removeprefix("| ") for line in lines[1:]]


PARTS = sorted({control.row for control in CONTROLS} | set(WITHOUT))


def meant(part: str) -> list[str]:
    """The rows that may be meant: the one that says just this, or those that contain it."""
    return [row for row in rows() if row == part] or [row for row in rows() if part in row]


def test_every_row_of_the_table_has_a_control() -> None:
    """Whoever promises something says which lines hold it, so that they can be taken out."""
    covered = {row for part in PARTS for row in meant(part)}
    missing = [row for row in rows() if row not in covered]
    assert missing == [], "rows of docs/reliability.md without a control in tests/controls.toml"


@pytest.mark.parametrize("part", PARTS)
def test_a_control_belongs_to_one_row(part: str) -> None:
    """Its words are found in exactly one row."""
    assert len(meant(part)) == 1


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_a_control_can_be_carried_out(control: Control) -> None:
    """What it takes out is there once, and what is left is Python."""
    for change in control.changes:
        compile(change.applied(ROOT), change.file, "exec")


def test_the_tests_of_all_controls_exist() -> None:
    """With their parameters, as pytest names them."""
    assert all(control.tests for control in CONTROLS)
    assert unknown({test for control in CONTROLS for test in control.tests}) == set()


def test_no_control_is_listed_twice() -> None:
    """Each has a name of its own in its row."""
    counts = Counter((control.row, control.out) for control in CONTROLS)
    assert counts.most_common(1)[0][1] == 1


def test_no_change_uses_a_name_that_is_not_there(tmp_path: Path) -> None:
    """A test is to fail for want of the mechanism, not because of a slip in the control."""
    for number, change in enumerate(c for control in CONTROLS for c in control.changes):
        (tmp_path / f"c{number}.py").write_text(change.applied(ROOT))
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select"]
    done = subprocess.run(
        [*command, "F821,F823", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_change_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """What is not there, or there twice, is never silently left in place."""
    (tmp_path / "some.py").write_text("one\ntwo\ntwo\n")
    assert Change("some.py", "one", "1").applied(tmp_path) == "1\ntwo\ntwo\n"
    for old in ("two", "three"):
        with pytest.raises(ValueError, match=old):
            Change("some.py", old, "").applied(tmp_path)
