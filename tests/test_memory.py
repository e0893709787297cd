"""Memory that runs out: the kernel ends the worker, and that is not taken for somebody's kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ftd.daemon.memory import MemoryKills
from tests.homes import LiveHome

GROUPS = Path("/sys/fs/cgroup")
LIMIT_BYTES = 300 << 20

HOARDER = '''
from ftd.job import Completed, Job, Params

class HoarderParams(Params):
    """Nothing to say."""

class Hoarder(Job[HoarderParams]):
    """Takes more memory than there is."""
    Params = HoarderParams
    def run(self, params, context):
        """A gigabyte, touched."""
        context.restore()
        taken = [bytes([1]) * (16 << 20) for _ in range(64)]
        return Completed({"test/taken": len(taken)}, "0" * 64, 1)
'''


def test_the_kernels_count_is_compared_with_the_look_before_the_last(tmp_path: Path) -> None:
    """What happened two looks ago explains nobody's death now."""
    source = tmp_path / "vmstat"
    source.write_text("pgfault 9\noom_kill 3\n")
    kills = MemoryKills(source)
    assert not kills.lately()
    source.write_text("pgfault 9\noom_kill 4\n")
    found = []
    for _ in range(3):
        found.append(kills.lately())
        kills.look()
    assert found == [True, True, False]
    source.unlink()
    assert not MemoryKills(source).lately(), "a kernel that does not say"


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A memory group with little room, its ``cgroup.procs`` to be written to."""
    old = GROUPS / "memory"
    group = (old if old.is_dir() else GROUPS) / f"ftd-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if old.is_dir() else "memory.max"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory group can be made here ({error})")
    try:
        try:
            (group / limit).write_text(str(LIMIT_BYTES))
        except OSError as error:
            pytest.skip(f"no limit can be set here ({error})")
        yield group / "cgroup.procs"
    finally:
        with suppress(OSError):  # somebody is still in it
            group.rmdir()


def test_a_run_that_fills_the_memory_is_tried_once_more(tmp_path: Path, small_memory: Path) -> None:
    """As after an error that says so; a kill of unknown origin would be tried five times."""
    (tmp_path / "hoarder.py").write_text(HOARDER)
    home = LiveHome(tmp_path / "home", slots=1)
    daemon = home.start_daemon()
    small_memory.write_text(str(daemon.pid))
    home.enqueue(f"experiment: full\njob: {tmp_path}/hoarder.py:Hoarder\ndevice: cpu\n")
    home.until_states("failed")
    home.stop_daemon()
    attempts = home.json("show", "r1")["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["out_of_memory"] * 2
    assert "kernel ended the worker" in attempts[-1]["error"]
