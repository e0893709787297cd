"""A disk that fills up or is read-only: nothing half-written counts, and all goes on afterwards."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ftd.cli.main import VERBS
from ftd.diskspace import is_storage_trouble, shortage
from tests.disks import MIB, fill, small_disk_at
from tests.homes import LiveHome, outcome_of, serving

SPEC = """
experiment: full
job: drill
steps: 60
step_s: 0.02
width: 2000
seed: 5
"""
# A use of every verb, and whether it can do its work in a home that nobody can write to.
USES: dict[str, tuple[bool, list[str]]] = {
    "enqueue": (False, ["-"]),
    "status": (True, []),
    "runs": (True, []),
    "show": (True, ["r1"]),
    "logs": (True, ["r1"]),
    "wait": (True, ["full"]),
    "summary": (True, ["full"]),
    "changes": (True, ["full"]),
    "advise": (True, ["--target", "digits"]),
    "distances": (True, ["full"]),
    "export": (True, ["full"]),
    "cancel": (False, ["full"]),
    "hold": (False, ["full"]),
    "release": (True, ["full"]),  # nothing is held, so nothing is to be done
    "retry": (False, ["full"]),
    "prioritise": (False, ["full", "3"]),
    "layers": (True, ["resnet18"]),
    "schema": (True, []),
    "init": (True, []),
    "daemon": (False, []),
    "service": (True, ["checkpoint"]),
    "fsck": (True, []),
    "doctor": (False, []),
    "predict": (False, ["r1", "/"]),
    "check-job": (True, ["drill", "--places", "1", "--entries", "1"]),
}
WRITE_NOTHING = ("doctor", "predict")  # what they refuse has other reasons


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 24 MiB."""
    with small_disk_at(tmp_path / "disk") as folder:
        yield folder


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    """The filesystem read-only for the length of a block; nobody may have a file open there."""
    remount = ["mount", "-o", "remount,ro", str(disk)]
    while subprocess.run(remount, capture_output=True).returncode:
        time.sleep(0.05)  # a process that was killed is still leaving
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@pytest.fixture(scope="module")
def read_only_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveHome]:
    """A home with a run that is done, on a filesystem that is read-only."""
    with small_disk_at(tmp_path_factory.mktemp("read-only") / "disk") as disk:
        home = LiveHome(disk / "home", slots=1)
        home.enqueue(SPEC.replace("60", "3"))
        assert home.finish() == 0
        with _read_only(disk):
            yield home


def test_runs_wait_for_room_and_go_on_by_themselves(tmp_path: Path, small_disk: Path) -> None:
    """A run whose disk fills up loses nothing: it waits, says why, and ends like its twin."""
    twin = LiveHome(tmp_path / "twin", slots=1)
    twin.enqueue(SPEC)
    assert twin.finish() == 0
    home = LiveHome(small_disk / "home", slots=1)
    home.enqueue(SPEC)
    with serving(home):
        home.until_step(8)
        filler = fill(small_disk)
        home.until(lambda: not home.workers(), "the worker found no room")
        assert "MiB are free" in home.json("status")["short_of_space"]
        assert "home/store is a cache" in home.ftd("status").stdout
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
    filler = fill(small_disk)
    done = home.ftd("enqueue", "-", "--json", stdin=SPEC.replace("60", "61") + "replicates: 2000\n")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    filler.unlink()
    assert len(home.runs()) == 1
    assert home.finish() == 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_answers_in_a_home_that_is_read_only(
    read_only_home: LiveHome, verb: str
) -> None:
    """What only reads works; what would have to write says in one line why it cannot."""
    works, arguments = USES[verb]
    done = read_only_home.ftd(verb, *arguments, stdin=SPEC if verb == "enqueue" else None)
    assert (done.returncode == 0) is works, done.stderr
    assert "Traceback" not in done.stderr
    if not works and verb not in WRITE_NOTHING:
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "read-only" in done.stderr or "readonly" in done.stderr


@pytest.mark.parametrize("verb", ["init", "enqueue", "daemon"])
def test_no_home_is_begun_where_nothing_can_be_written(read_only_home: LiveHome, verb: str) -> None:
    """One line, and nothing is left."""
    nowhere = read_only_home.root.parent / "nowhere"
    arguments = ["--home", str(nowhere), *USES[verb][1]]
    done = read_only_home.ftd(verb, *arguments, stdin=SPEC if verb == "enqueue" else None)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr
    assert not nowhere.exists()


def test_a_home_that_was_read_only_goes_on(tmp_path: Path, small_disk: Path) -> None:
    """Killed in the middle, then mounted read-only: what runs then says so; mended, all goes on."""
    twin = LiveHome(tmp_path / "twin", slots=1)
    twin.enqueue(SPEC)
    assert twin.finish() == 0
    home = LiveHome(small_disk / "home", slots=1)
    home.enqueue(SPEC)
    home.start_daemon()
    home.until_step(8)
    home.kill_daemon()
    home.kill_workers()
    with _read_only(small_disk):
        done = home.ftd("daemon")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert home.states() == ["running"], "the ledger is read with its journal"
    assert home.finish() == 0
    assert outcome_of(home) == outcome_of(twin)


def test_a_home_that_did_not_fit_is_not_there(small_disk: Path) -> None:
    """A disk too full for a ledger gets none; with room, the same command makes it."""
    filler = fill(small_disk, leave=64 << 10)
    home = LiveHome(small_disk / "home", slots=1)
    done = home.ftd("enqueue", "-", stdin=SPEC)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert not list(home.root.glob("*ledger*sqlite*")) and not list(home.root.glob(".ledger*"))
    filler.unlink()
    home.enqueue(SPEC)
    assert home.states() == ["queued"]


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
        (OSError("3145728 requested and 1048448 written"), True),
        (OSError("cannot identify image file"), False),
    ],
)
def test_storage_trouble_is_told_from_other_errors(error: Exception, trouble: bool) -> None:
    """Full, failing and read-only disks, whoever reports them; nothing else."""
    assert is_storage_trouble(error) is trouble


def test_libraries_report_a_full_disk_as_expected(small_disk: Path) -> None:
    """The wordings that are looked for are those of the installed libraries."""
    import torch
    from safetensors.torch import save_file

    fill(small_disk)
    for save in (
        lambda path: save_file({"a": torch.zeros(MIB)}, path),
        lambda path: torch.save({"a": torch.zeros(MIB)}, path),
        lambda path: np.save(path, np.zeros(MIB)),
        lambda path: np.savez(path, np.zeros(MIB)),
    ):
        with pytest.raises(Exception) as caught:
            save(os.fspath(small_disk / "weights"))
        assert is_storage_trouble(caught.value), caught.value
