"""A disk that fills up: nothing half-written counts, and all goes on when there is room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftd.diskspace import is_storage_trouble, shortage
from tests.homes import LiveHome, outcome_of, serving

SPEC = """
experiment: full
job: drill
steps: 60
step_s: 0.02
width: 2000
seed: 5
"""
MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small filesystem needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder: Path) -> Path:
    """Take all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler


def test_runs_wait_for_room_and_go_on_by_themselves(tmp_path: Path, small_disk: Path) -> None:
    """A run whose disk fills up loses nothing: it waits, says why, and ends like its twin."""
    twin = LiveHome(tmp_path / "twin", slots=1)
    twin.enqueue(SPEC)
    assert twin.finish() == 0
    home = LiveHome(small_disk / "home", slots=1)
    home.enqueue(SPEC)
    with serving(home):
        home.until_step(8)
        filler = _fill(small_disk)
        home.until(lambda: not home.workers(), "the worker found no room")
        assert "MiB are free" in home.json("status")["short_of_space"]
        filler.unlink()
        home.until_states("done")
    assert outcome_of(home) == outcome_of(twin)
    attempts = home.json("show", "r1")["attempts"]
    assert attempts[-1]["outcome"] == "completed"
    assert attempts[-1]["resumed_from_step"] >= 5
    assert {attempt["outcome"] for attempt in attempts[:-1]} <= {"stopped", "lost"}


def test_an_enqueue_without_room_is_not_acknowledged(small_disk: Path) -> None:
    """Without room for the commit nothing is promised and nothing is damaged."""
    home = LiveHome(small_disk / "home", slots=1)
    home.enqueue(SPEC)
    filler = _fill(small_disk)
    done = home.ftd("enqueue", "-", "--json", stdin=SPEC.replace("60", "61") + "replicates: 2000\n")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    filler.unlink()
    assert len(home.runs()) == 1
    assert home.finish() == 0


def test_shortage_is_judged_by_the_filesystem(small_disk: Path) -> None:
    """On a small disk the reserve is a share of it."""
    assert shortage(small_disk) is None
    (small_disk / "most").write_bytes(b"x" * 23 * MIB)
    assert "MiB are free" in (shortage(small_disk) or "")


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("os error"), False),
    ],
)
def test_storage_trouble_is_told_from_other_errors(error: Exception, trouble: bool) -> None:
    """Full, failing and read-only disks, whoever reports them; nothing else."""
    assert is_storage_trouble(error) is trouble


def test_safetensors_reports_a_full_disk_as_expected(small_disk: Path) -> None:
    """The wording that is looked for is the one of the installed library."""
    import torch
    from safetensors.torch import save_file

    _fill(small_disk)
    with pytest.raises(Exception) as caught:
        save_file({"a": torch.zeros(MIB)}, os.fspath(small_disk / "weights"))
    assert is_storage_trouble(caught.value)
