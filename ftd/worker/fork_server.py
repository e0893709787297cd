"""A parent of workers that has a job's libraries loaded: a worker forked from it starts at once.

It computes nothing, touches no device and starts no thread (OpenBLAS does, and makes its own anew
in a forked process), so that a forked worker is like one that loaded the libraries itself.  It
speaks with the daemon in JSON, a message each, over its standard input (a socket):

    <- {"ready": true}                              once, when all is loaded
    -> {"directory": ..., "environment": {...}}     with three descriptors: log, device lock, and
                                                    the worker's own channel to the daemon
    <- {"forked": identity}                         null: it ended at once
    <- {"outdated": true}                           instead: a file that is loaded has changed
    <- {"ended": pid, "status": n}                  negative: a signal

It leaves when the daemon does, or when nothing was asked of it for `IDLE_S`; its workers go on.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftd import catalog, faults
from ftd.process import identity_of
from ftd.worker.loaded import Loaded

IDLE_S = 300.0
MAX_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Forked:
    """What a forked worker begins with: its attempt's directory, its channel to the daemon."""

    directory: Path
    channel: socket.socket


def serve(channel: socket.socket, job: str) -> Forked | None:
    """Fork workers of `job` as `channel` asks for.

    None when nobody asks any more; in a forked worker: what it begins with.
    """
    for module in catalog.job(job).preload:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # collections in a worker leave our pages alone, so they stay shared
    bell, ringer = socket.socketpair()  # makes the end of a worker end a wait
    for end in (bell, ringer):
        end.setblocking(False)
    signal.set_wakeup_fd(ringer.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with bell, ringer, suppress(ConnectionError):  # the daemon is gone: so are we
        return _ForkServer(channel, bell).run()
    return None


class _ForkServer:
    def __init__(self, channel: socket.socket, bell: socket.socket) -> None:
        self._channel = channel
        self._bell = bell
        self._loaded = Loaded()
        self._outdated = False
        self._children: set[int] = set()

    def run(self) -> Forked | None:
        self._say(ready=True)
        poll = select.poll()
        for end in (self._channel, self._bell):
            poll.register(end, select.POLLIN)
        while True:
            events = {descriptor for descriptor, _ in poll.poll(IDLE_S * 1000)}
            if self._bell.fileno() in events:
                self._bell.recv(4096)
                self._reap()
            if self._channel.fileno() in events:
                asked, descriptors, *_ = socket.recv_fds(self._channel, MAX_MESSAGE_BYTES, 3)
                if not asked:
                    return None
                forked = self._answer(json.loads(asked), descriptors)
                if forked is not None:
                    return forked
            if not self._children and (self._outdated or not events):
                return None

    def _answer(self, asked: Mapping[str, Any], descriptors: list[int]) -> Forked | None:
        """Fork the worker that is asked for; in it, what it begins with."""
        faults.point("fork.asked")
        self._outdated = self._outdated or self._loaded.changed()
        pid = None
        if not self._outdated:
            told, tell = os.pipe()
            pid = os.fork()
            if pid == 0:
                self._channel.close()
                os.close(told)
                directory = _become_worker(asked, log=descriptors[0])
                os.close(tell)
                return Forked(directory, socket.socket(fileno=descriptors[2]))
            os.close(tell)
            os.read(told, 1)  # until it stands on its own, or is gone
            os.close(told)
        for descriptor in descriptors:  # the lock is the worker's now
            os.close(descriptor)
        if pid is None:
            self._say(outdated=True)
            return None
        faults.point("fork.forked")
        self._children.add(pid)
        identity = identity_of(pid)
        self._say(forked=identity and identity.as_json())
        return None

    def _reap(self) -> None:
        for child in sorted(self._children):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                self._children.remove(pid)
                self._say(ended=pid, status=os.waitstatus_to_exitcode(status))

    def _say(self, **message: object) -> None:
        self._channel.send(json.dumps(message).encode())


def _become_worker(asked: Mapping[str, Any], log: int) -> Path:
    """Be what the daemon would have started: session, folder, environment, standard streams."""
    directory = Path(asked["directory"])
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(asked["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    os.close(nothing)
    os.close(log)
    with suppress(OSError):
        Path("/proc/self/comm").write_text("ftd-worker")
    return directory
