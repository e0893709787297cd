"""Workers forked from a process that has their libraries loaded are like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftd import catalog
from ftd.process import Identity, identity_of, pids
from ftd.protocol import WORKER
from ftd.worker import fork_server
from tests.homes import LiveHome, helpers_of, outcome_of, serving

SHORT = """
experiment: short
job: drill
steps: 3
replicates: 3
seed: 4
"""
LONG = """
experiment: long
job: drill
steps: 40
step_s: 0.05
children: {children}
seed: 5
"""
IMAGES = """
experiment: images
job: finetune
model: {name: resnet18, weights: none}
layers: "R(1-last)"
target: {dataset: digits, decode_size: 20, test_per_class: 5, val_per_class: 2, per_class: 3}
train: {epochs: 1, batch_size: 10}
factors: {train.lr: [LEVELS]}
seed: 5
"""


def _home(root: Path, *, warm: bool = True) -> LiveHome:
    home = LiveHome(root, slots=1)
    with (root / "ftd.toml").open("a") as config:
        config.write(f"[jobs]\nwarm_start = {str(warm).lower()}\nshare_workers = false\n")
    return home


def _servers(home: LiveHome) -> list[Identity]:
    """The parents of workers that the home's daemon started."""
    assert home.daemon is not None
    found = []
    for pid in pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"--fork-server" in words and parent == home.daemon.pid:
            found.append(identity_of(pid))
    return [identity for identity in found if identity is not None]


def _forked(worker: Identity) -> bool:
    try:
        return Path(f"/proc/{worker.pid}/comm").read_text() == "ftd-worker\n"
    except OSError:
        return False


@pytest.mark.parametrize("job", sorted(catalog.BUILT_IN))
def test_loading_touches_no_device_and_starts_no_thread(job: str) -> None:
    """What a parent of workers has loaded can be forked and can use a GPU afterwards."""
    program = (
        "import importlib, os, sys; from ftd import catalog\n"
        f"for module in catalog.job({job!r}).preload: importlib.import_module(module)\n"
        "assert len(os.listdir('/proc/self/task')) == 1\n"
        "assert 'libcuda.so' not in open('/proc/self/maps').read()\n"
        "assert 'torch' not in sys.modules or not sys.modules['torch'].cuda.is_initialized()\n"
    )
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    subprocess.run([sys.executable, "-P", "-c", program], env={**os.environ, **one}, check=True)


@pytest.fixture
def warmed(tmp_path: Path) -> Iterator[LiveHome]:
    """A home that is served, with a parent of workers ready."""
    home = _home(tmp_path / "home")
    home.enqueue(SHORT)
    with serving(home):
        home.until_states("done", "done", "done")
        home.until(lambda: _servers(home), "short runs got a parent of workers")
        yield home


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the long run gives by itself."""
    home = _home(tmp_path_factory.mktemp("twin") / "home", warm=False)
    home.enqueue(LONG.format(children=0))
    assert home.finish() == 0
    return outcome_of(home)["r1"]


def _long(home: LiveHome, children: int = 0) -> Identity:
    """Begin the long run; its worker, which was forked."""
    home.enqueue(LONG.format(children=children))
    home.until_step(8, "r4")
    (worker,) = home.workers()
    assert _forked(worker)
    return worker


def test_fine_tuning_gives_the_same_in_forked_workers(tmp_path: Path) -> None:
    """Same digest, metrics and metric rows as in a worker that loads torch itself."""
    warm = _home(tmp_path / "warm")
    warm.enqueue(IMAGES.replace("LEVELS", "0.01, 0.02, 0.03"))
    with serving(warm):
        warm.until(lambda: any(_forked(worker) for worker in warm.workers()), "one is forked")
        (third,) = warm.home.attempts(3)
        assert (warm.home.attempt(3, third) / WORKER).exists()
        warm.until_states("done", "done", "done")
    cold = _home(tmp_path / "cold", warm=False)
    cold.enqueue(IMAGES.replace("LEVELS", "0.03"))
    assert cold.finish() == 0
    assert outcome_of(warm)["r3"] == outcome_of(cold)["r1"]


def test_a_forked_worker_stands_on_its_own(warmed: LiveHome, twin: Any) -> None:
    """It leads a session, holds the device and the run, and its log is the attempt's."""
    worker = _long(warmed)
    assert os.getsid(worker.pid) == worker.pid
    status = warmed.json("status")
    assert [device["state"] for device in status["devices"]] == ["leased"]
    descriptors = Path(f"/proc/{worker.pid}/fd")
    opened = {str((descriptors / name).readlink()) for name in os.listdir(descriptors)}
    attempt = warmed.home.attempt(4, 1).resolve()
    assert str(attempt.parent.parent / "lock") in opened
    assert str(attempt / "log.txt") in opened
    (server,) = _servers(warmed)
    held = Path(f"/proc/{server.pid}/fd")
    assert not [n for n in os.listdir(held) if "locks" in str((held / n).readlink())]
    warmed.until_states("done", "done", "done", "done")
    assert outcome_of(warmed)["r4"] == twin
    assert "drill on cpu:0" in warmed.ftd("logs", "r4").stdout


def test_a_forked_worker_that_is_killed_takes_nobody_with_it(warmed: LiveHome, twin: Any) -> None:
    """How it ended is known, its helpers are ended, the run goes on, and so does its parent."""
    worker = _long(warmed, children=2)
    helpers = helpers_of(worker)
    assert len(helpers) == 2
    before = _servers(warmed)
    os.kill(worker.pid, signal.SIGKILL)
    warmed.until_states("done", "done", "done", "done")
    assert outcome_of(warmed)["r4"] == twin
    attempts = warmed.json("show", "r4")["attempts"]
    assert [a["outcome"] for a in attempts] == ["killed", "completed"]
    assert not any(identity_of(helper.pid) == helper for helper in helpers)
    assert _servers(warmed) == before


def test_a_forked_worker_goes_on_when_daemon_and_parent_are_gone(
    warmed: LiveHome, twin: Any
) -> None:
    """The parent leaves with the daemon; the next daemon adopts the worker."""
    worker = _long(warmed)
    (server,) = _servers(warmed)
    warmed.kill_daemon()
    warmed.until(lambda: identity_of(server.pid) != server, "the parent leaves too")
    assert identity_of(worker.pid) == worker
    assert warmed.finish() == 0
    assert outcome_of(warmed)["r4"] == twin
    assert len(warmed.json("show", "r4")["attempts"]) == 1


def test_a_parent_that_dies_is_done_without(warmed: LiveHome, twin: Any) -> None:
    """Workers are started the slow way then."""
    (server,) = _servers(warmed)
    os.kill(server.pid, signal.SIGKILL)
    warmed.enqueue(LONG.format(children=0))
    warmed.until_states("done", "done", "done", "done")
    assert outcome_of(warmed)["r4"] == twin
    assert len(warmed.json("show", "r4")["attempts"]) == 1


def test_a_parent_whose_files_have_changed_forks_no_more(warmed: LiveHome) -> None:
    """What is executed is what is installed."""
    (server,) = _servers(warmed)
    loaded = Path(fork_server.__file__)
    before = loaded.stat()
    try:
        os.utime(loaded, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        warmed.enqueue(LONG.format(children=0))
        warmed.until_step(1, "r4")
        (worker,) = warmed.workers()
        assert not _forked(worker)
    finally:
        os.utime(loaded, ns=(before.st_atime_ns, before.st_mtime_ns))
    warmed.until(lambda: identity_of(server.pid) != server, "it leaves")
