"""A real home with a real daemon, for tests: commands, kills, and waits for named conditions."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ftd.files import read_json
from ftd.layout import Home
from ftd.process import Identity, alive, identity_of, kill_session, pids
from ftd.protocol import EVENTS, WORKER

FTD = (sys.executable, "-P", "-m", "ftd")
# Of any wait: far beyond what a loaded machine needs, so that a hang ends.
DEADLINE_S = float(os.environ.get("FTD_TEST_DEADLINE_S", 240))

CONFIG = """
[devices]
cpu_slots = {slots}
gpus = "none"
lock_directory = "{locks}"
[checkpoints]
every_s = 3600.0
every_steps = {every_steps}
[stop]
grace_s = {grace_s}
[retries]
failed = {failed}
killed = 50
backoff_s = 0.05
[breaker]
quick_s = {quick_s}
[daemon]
tick_s = 0.05
"""


class LiveHome:
    """A home below `root` with its own device locks, so that tests do not share the machine's."""

    def __init__(
        self,
        root: Path,
        *,
        slots: int = 2,
        every_steps: int = 5,
        grace_s: float = 30.0,
        failed: int = 1,
        quick_s: float = 60.0,
    ) -> None:
        self.root = root
        self.home = Home(root)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.launcher: Sequence[str] = ()  # a command through which the daemon is started,
        self.descriptors: Sequence[int] = ()  # and what that command inherits
        root.mkdir(parents=True, exist_ok=True)
        locks = root.parent / f"{root.name}-locks"
        locks.mkdir(exist_ok=True)
        (root / "ftd.toml").write_text(
            CONFIG.format(
                slots=slots,
                locks=locks,
                every_steps=every_steps,
                grace_s=grace_s,
                failed=failed,
                quick_s=quick_s,
            )
        )

    def ftd(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*FTD, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, "FTD_HOME": str(self.root)},
            timeout=DEADLINE_S,
        )

    def json(self, *arguments: str) -> Any:
        """What a command that must succeed prints with --json."""
        done = self.ftd(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def enqueue(self, spec: str, *options: str) -> dict[str, Any]:
        """Enqueue a spec's text."""
        done = self.ftd("enqueue", "-", "--json", *options, stdin=spec)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def start_daemon(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a daemon and remember it."""
        with (self.root / "daemon.out").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*self.launcher, *FTD, "daemon", *options],
                pass_fds=self.descriptors,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "FTD_HOME": str(self.root)},
            )
        return self.daemon

    def kill_daemon(self) -> None:
        """SIGKILL the daemon and only it."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def stop_daemon(self) -> int:
        """SIGTERM the daemon; its exit status."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(DEADLINE_S)

    def freeze_daemon(self) -> None:
        """SIGSTOP, but not in the middle of a write: then nobody else could write to the ledger."""
        assert self.daemon is not None
        while True:
            self.daemon.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.daemon.pid, os.WSTOPPED)
            if self._can_be_written():
                return
            self.thaw_daemon()
            time.sleep(0.01)

    def thaw_daemon(self) -> None:
        """SIGCONT."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGCONT)

    def _can_be_written(self) -> bool:
        ledger = sqlite3.connect(self.home.ledger, timeout=0, isolation_level=None)
        try:
            ledger.execute("BEGIN IMMEDIATE")
            ledger.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            ledger.close()
        return True

    def finish(self, limit_s: float = DEADLINE_S) -> int:
        """Serve until nothing is left to do; the daemon's exit status."""
        return self.start_daemon("--until-idle").wait(limit_s)

    def workers(self) -> list[Identity]:
        """All living workers, each once however many attempts it executed."""
        said = (read_json(path) for path in self.root.glob(f"runs/*/attempts/*/{WORKER}"))
        found = dict.fromkeys(Identity.from_json(value) for value in said)
        return [identity for identity in found if identity is not None and alive(identity)]

    def kill_workers(self) -> int:
        """SIGKILL all living workers; how many there were."""
        return sum(kill_session(identity) for identity in self.workers())

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until `condition` gives something true, and return that."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError(f"waited in vain until {what}\n{self.log()}")

    def until_step(self, step: int, run: str = "*") -> None:
        """Wait until a run, in any attempt, has recorded a metric at `step` or later."""
        self.until(lambda: max(self._steps(run), default=-1) >= step, f"step {step} of {run}")

    def _steps(self, run: str) -> Iterator[int]:
        for path in self.root.glob(f"runs/{run}/attempts/*/{EVENTS}"):
            for line in path.read_bytes().splitlines():
                if line.startswith(b"{") and line.endswith(b"}"):
                    event = json.loads(line)
                    if event["kind"] in ("metric", "checkpoint"):
                        yield event["step"]

    def runs(self, *arguments: str) -> list[dict[str, Any]]:
        """``ftd runs --json``."""
        found: list[dict[str, Any]] = self.json("runs", *arguments)
        return found

    def states(self) -> list[str]:
        """The state of every run, in the order of their ids."""
        return [run["state"] for run in self.runs()]

    def until_states(self, *wanted: str) -> None:
        """Wait until the runs stand exactly so."""
        self.until(lambda: self.states() == list(wanted), f"the runs are {wanted}")

    def log(self) -> str:
        """What the daemons said."""
        path = self.root / "daemon.out"
        return path.read_text() if path.exists() else ""


def outcome_of(home: LiveHome) -> Mapping[str, Any]:
    """What must be equal however often a home's runs were interrupted: digests and metric rows."""
    from ftd.ledger.db import open_ledger
    from ftd.ledger.details import metric_rows

    found: dict[str, Any] = {}
    ledger = open_ledger(home.home)
    for run in home.runs():
        rows = [(row.name, row.step, row.value) for row in metric_rows(ledger, int(run["id"][1:]))]
        assert rows, f"{run['id']} recorded nothing"
        found[run["id"]] = (run["state"], run["state_sha256"], run["metrics"], rows)
    ledger.close()
    return found


def helpers_of(worker: Identity) -> list[Identity]:
    """The processes of a worker's session but for itself."""
    found = []
    for pid in pids():
        with suppress(ProcessLookupError):
            if pid != worker.pid and os.getsid(pid) == worker.pid:
                found.append(identity_of(pid))
    return [identity for identity in found if identity is not None]


@contextmanager
def serving(home: LiveHome, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon for the length of a block; workers that are left are killed with it."""
    try:
        yield home.start_daemon(*options)
    finally:
        home.kill_daemon()
        home.kill_workers()
