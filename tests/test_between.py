"""Between two turns of a worker: what one run left does not reach the next."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ftd.config import parse
from ftd.daemon import devices
from ftd.gpus import Gpu, GpuProcess
from ftd.protocol import LOG
from ftd.worker import between
from ftd.worker.turns import Process, Turns

# In a session of its own, as workers are: a first attempt, then what the second leaves.
PROGRAM = """
import os, random, signal, subprocess, sys, threading, time
from pathlib import Path
from ftd.worker import between
from ftd.worker.between import Between
between.GROWTH_BYTES = 1 << 27
os.setsid()
place = Path.cwd()
turns = Between()
assert turns.left(place) is None
assert turns.left(place) is None
{leave}
print(turns.left(place))
"""


@pytest.mark.parametrize(
    ("leave", "says"),
    [
        ("pass", "None"),
        ("os.chdir('/')", "another folder, /"),
        ("os.environ['LEFT'] = '1'", "variables LEFT"),
        ("os.environ['FTD_ATTEMPT'] = 'the next'", "None"),
        ("os.umask(0o077)", "umask 0077"),
        ("signal.signal(signal.SIGUSR1, lambda *_: None)", "other handlers of signals"),
        ("kept = open('/etc/passwd')", "open files: /etc/passwd"),
        ("kept = os.pipe()", "open files: pipe"),
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "threads"),
        ("child = subprocess.Popen(['sleep', '5'])", "processes ["),
        ("kept = bytearray(b'x') * (3 << 26)", "MiB"),
        ("circle = [bytearray(b'x') * (3 << 26)]; circle.append(circle); del circle", "None"),
    ],
)
def test_what_a_run_left_is_named(tmp_path: Path, leave: str, says: str) -> None:
    """Whatever would reach the next run is seen; what the collector takes away is not left."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(leave=leave)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert says in done.stdout


def test_global_generators_begin_anew() -> None:
    """Whoever draws from one finds the same numbers in every turn."""
    program = (
        "import random, numpy, torch\n"
        "from ftd.worker.between import rewind\n"
        "fresh = torch.rand(3).tolist()\n"
        "def drawn(): return random.random(), numpy.random.rand(), torch.rand(3).tolist()\n"
        "rewind(); first = drawn()\n"
        "rewind(); assert drawn() == first and first[2] == fresh\n"
        "assert drawn() != first\n"
    )
    subprocess.run([sys.executable, "-P", "-c", program], check=True)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Process, Turns, socket.socket]:
    """This process as a worker that holds a run's lock, and the daemon's end of its socket."""
    monkeypatch.setattr(between.Between, "left", lambda self, directory: None)
    monkeypatch.setattr("ftd.worker.turns._turn_to", lambda directory: directory)
    daemon, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = Process()
    assert process.take(tmp_path / "lock") is not None
    return process, Turns(own), daemon


Worker = tuple[Process, Turns, socket.socket]


def test_a_worker_says_what_it_has_ended_and_is_told_what_is_next(
    worker: Worker, tmp_path: Path
) -> None:
    """A path each way; nobody else's run is locked meanwhile."""
    process, turns, daemon = worker
    process.release()
    assert Process().take(tmp_path / "lock") is not None, "the run is free"
    daemon.send(b"/the/next")
    assert turns.next(tmp_path, process) == Path("/the/next")
    assert daemon.recv(1000) == os.fsencode(tmp_path)


@pytest.mark.parametrize("how", ["closed", "closed before"])
def test_a_worker_that_is_let_go_leaves(worker: Worker, tmp_path: Path, how: str) -> None:
    """So it does when the daemon is gone."""
    process, turns, daemon = worker
    process.release()
    if how == "closed":
        daemon.shutdown(socket.SHUT_WR)
    else:
        daemon.close()
    assert turns.next(tmp_path, process) is None


def test_a_worker_whose_attempt_did_not_end_well_takes_no_more_turns(
    worker: Worker, tmp_path: Path
) -> None:
    """It keeps the run's lock to its end and asks for nothing."""
    process, turns, daemon = worker
    daemon.send(b"/the/next")
    assert turns.next(tmp_path, process) is None


def test_a_worker_that_shall_leave_takes_no_more_turns(worker: Worker, tmp_path: Path) -> None:
    """A SIGTERM while the attempt ended, after its last checkpoint, is not forgotten."""
    process, turns, daemon = worker
    process.leaving = True
    process.release()
    daemon.send(b"/the/next")
    assert turns.next(tmp_path, process) is None


@pytest.mark.parametrize("told", [True, False])
def test_a_worker_asked_to_leave_while_it_waits(worker: Worker, tmp_path: Path, told: bool) -> None:
    """It does not wait for a daemon that is stopped; a run it was given already it leaves well."""
    process, turns, daemon = worker
    process.release()
    process.leaving = True  # only now
    if told:
        daemon.send(b"/the/next")
    assert turns.next(tmp_path, process) == (Path("/the/next") if told else None)
    calls: list[str] = []
    process.listen(lambda: calls.append("leave"))
    assert calls == ["leave"], "the next attempt is left at its first checkpoint"


def test_a_worker_that_finds_traces_takes_no_more_turns(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run begins in a process of its own; the log says why."""
    process, turns, daemon = worker
    monkeypatch.setattr(between.Between, "left", lambda self, directory: "umask 0077")
    process.release()
    daemon.send(b"/the/next")
    assert turns.next(tmp_path, process) is None


def test_a_turn_has_its_own_folder_log_and_mark(tmp_path: Path) -> None:
    """What a job prints, and who belongs to it, is told by the attempt."""
    (tmp_path / "next").mkdir()
    program = (
        "import os, sys; from pathlib import Path; from ftd.worker.turns import _turn_to\n"
        f"_turn_to(Path({str(tmp_path / 'next')!r}))\n"
        "print(os.getcwd(), os.environ['FTD_ATTEMPT'], flush=True); os.system('echo child >&2')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, check=True)
    assert done.stdout == done.stderr == b""
    said = (tmp_path / "next" / LOG).read_text()
    assert said == f"{tmp_path / 'next'} {tmp_path / 'next'}\nchild\n"


def test_a_gpu_that_somebody_else_began_to_use_gets_no_more_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our worker's own memory is no stranger's; another process's is; what is unseen counts too."""
    ours = Gpu("GPU-a", "H100", 1 << 36, 1 << 30, (GpuProcess(os.getpid(), 1 << 30),))
    present: list[Gpu] = [ours]
    monkeypatch.setattr(devices, "read_gpus", lambda: present)
    config = parse(f'[devices]\nlock_directory = "{tmp_path}"\n', "ftd.toml")

    def looked() -> bool:
        return devices.Devices(config, {}).shared_with_others("GPU-a", os.getsid(0))

    assert not looked()
    present[0] = replace(ours, processes=(*ours.processes, GpuProcess(2**22 + 1, None)))
    assert looked()
    present.clear()
    assert looked()
