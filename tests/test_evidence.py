"""What became of a worker is judged by evidence, in order, and never by silence alone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ftd.daemon.evidence import Alive, Blocked, Over, examine
from ftd.files import seal_json, try_lock
from ftd.process import Identity, own_identity
from ftd.protocol import EVENTS, RESULT, REVOKED, WORKER, Result
from ftd.states import Outcome


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An attempt's directory with an empty event stream."""
    folder = tmp_path / "attempts" / "1"
    folder.mkdir(parents=True)
    (folder / EVENTS).touch()
    return folder


def _examine(directory: Path, recorded: Identity | None = None) -> Alive | Over | Blocked:
    return examine(directory, directory.parent.parent / "lock", recorded)


@pytest.mark.parametrize("known_by", ["ledger", "worker"])
def test_a_living_process_is_alive(directory: Path, known_by: str) -> None:
    """Whoever recorded the identity: as long as exactly that process runs, the attempt lives."""
    own = own_identity()
    if known_by == "worker":
        seal_json(directory / WORKER, own.as_json())
    assert _examine(directory, own if known_by == "ledger" else None) == Alive(own, sealed=False)
    assert not (directory / REVOKED).exists()


def test_a_stranger_with_the_workers_pid_is_not_the_worker(directory: Path) -> None:
    """A re-used pid, or the same pid after a reboot, proves that the worker is gone."""
    own = own_identity()
    assert _examine(directory, replace(own, start_ticks=own.start_ticks - 1)) == Over(None)
    assert _examine(directory, replace(own, boot_id="before the reboot")) == Over(None)


def test_a_held_lock_blocks_the_verdict(directory: Path) -> None:
    """While anybody holds the run's lock, the attempt is neither over nor revoked."""
    held = try_lock(directory.parent.parent / "lock")
    assert held is not None
    assert _examine(directory) == Blocked()
    assert not (directory / REVOKED).exists()
    os.close(held)
    assert _examine(directory) == Over(None)


def test_without_evidence_the_attempt_is_revoked(directory: Path) -> None:
    """An attempt that is over without a result can never start late."""
    assert _examine(directory) == Over(None)
    assert (directory / REVOKED).exists()


def test_an_attempt_that_was_never_written_is_revoked_too(tmp_path: Path) -> None:
    """The daemon died between recording an attempt and making its directory."""
    directory = tmp_path / "attempts" / "1"
    assert _examine(directory) == Over(None)
    assert (directory / REVOKED).exists()


def test_a_sealed_result_decides(directory: Path) -> None:
    """A result counts when its worker is gone, though nobody saw how it went."""
    result = Result(Outcome.COMPLETED, metrics={"test/a": 1.0}, state_sha256="ab")
    seal_json(directory / RESULT, result.as_json())
    assert _examine(directory) == Over(result)
    assert not (directory / REVOKED).exists()


@pytest.mark.parametrize(
    "damaged",
    [{}, {"outcome": "splendid"}, {"outcome": "completed", "new": 1}, {"outcome": "completed"}],
    ids=["empty", "unknown outcome", "unknown field", "events too short"],
)
def test_a_damaged_result_does_not_count(directory: Path, damaged: dict[str, object]) -> None:
    """A result that cannot be read, or whose events are not all there, is no result."""
    if damaged == {"outcome": "completed"}:
        damaged = Result(Outcome.COMPLETED, events_offset=10).as_json()
    seal_json(directory / RESULT, damaged)
    assert _examine(directory) == Over(None, damaged=True)
