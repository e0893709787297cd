"""A short storm; ``make storm`` raises long ones."""

from __future__ import annotations

from pathlib import Path

from tests.storm import storm


def test_a_short_storm_leaves_nothing_wrong(tmp_path: Path) -> None:
    """Random kills of everybody: nothing lost, doubled, different or left behind."""
    verdict = storm(tmp_path, seed=7, kills=12, real=1)
    assert verdict.good, verdict.line()
    assert verdict.kills.total() >= 12
    assert verdict.attempts > verdict.runs, "nothing was interrupted"
