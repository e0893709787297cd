"""The daemon's end of a parent of workers (:mod:`ftd.worker.fork_server`).

Whatever goes wrong with that process is no error: workers are started the slow way then.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ftd.process import Identity

ANSWER_S = 10.0  # far beyond what an answer takes: whoever needs longer hangs
MAX_MESSAGE_BYTES = 1 << 16


class Descriptors(NamedTuple):
    """What a worker inherits: its log, the lock of its device, its channel to us."""

    log: int
    device_lock: int
    channel: int


@dataclass(frozen=True)
class Forked:
    """A worker was forked; no `identity`: it ended at once."""

    identity: Identity | None


class ForkServer:
    """A process that loads the libraries of `job` and then forks workers of it."""

    def __init__(self, job: str, environment: Mapping[str, str]) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready = False
        self._statuses: dict[int, int] = {}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ftd.worker", "--fork-server", job],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(environment),
                start_new_session=True,
            )

    def ready(self) -> bool:
        """Whether it has loaded everything."""
        while not self._ready and self._take(wait_s=0):
            pass
        return self._ready

    def gone(self) -> bool:
        """Whether it has ended: because nothing was asked of it for long, or by an accident."""
        return self._process.poll() is not None

    def fork(
        self, directory: Path, environment: Mapping[str, str], descriptors: Descriptors
    ) -> Forked | None:
        """Let it fork a worker; None when it does not, and never will again."""
        request = {"directory": str(directory), "environment": environment}
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
        except OSError:
            self.close()
            return None
        answer: dict[str, Any] | None = {}
        while answer is not None and not answer.keys() & {"forked", "outdated"}:
            answer = self._take(wait_s=ANSWER_S)
        if answer is None:
            self.close()  # whatever it forked meanwhile, the run's lock lets one worker begin
        if answer is None or "outdated" in answer:
            return None
        return Forked(Identity.from_json(answer["forked"]))

    def exit_status(self, pid: int) -> int | None:
        """Exit status of a worker of it that has ended; None if that cannot be known."""
        while pid not in self._statuses and self._take(wait_s=ANSWER_S):
            pass
        return self._statuses.get(pid)

    def close(self) -> None:
        """End it; its workers go on."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _take(self, wait_s: float) -> dict[str, Any] | None:
        """Its next message, after at most `wait_s`; None: there is none."""
        with suppress(OSError):  # it is gone
            if self._channel.fileno() >= 0 and select.select([self._channel], [], [], wait_s)[0]:
                content = self._channel.recv(MAX_MESSAGE_BYTES)
                message: dict[str, Any] = json.loads(content or "{}")
                self._ready = self._ready or "ready" in message
                if "ended" in message:
                    self._statuses[message["ended"]] = message["status"]
                return message or None
        return None
