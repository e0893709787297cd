"""Starting workers: one interface, so that something else than a local process may follow."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ftd.clock import monotonic
from ftd.daemon.fork_server import Descriptors, ForkServer
from ftd.daemon.warm_start import Kind, WarmStart, kind
from ftd.environment import inheritable
from ftd.process import Identity, identity_of
from ftd.protocol import LOG, MARK, Order
from ftd.source import INTERPRETER

MAX_PATH_BYTES = 1 << 16


class Launcher(Protocol):
    """Gives attempts to workers and knows how those ended, as far as that can be known."""

    def launch(self, directory: Path, order: Order, device_lock: int) -> Identity | None:
        """Start a worker; its identity, None if it ended at once.  Raises OSError if it cannot."""

    def waits(self, identity: Identity) -> bool:
        """Whether a worker has ended its attempt well and waits for another."""

    def hand_over(self, identity: Identity, directory: Path) -> None:
        """Give a waiting worker another attempt; one that is gone by now takes no notice."""

    def release(self, identity: Identity) -> None:
        """Let a waiting worker leave."""

    def exit_status(self, identity: Identity) -> int | None:
        """Exit status (negative: signal) of a worker launched here that has ended, else None."""

    def forget(self, identity: Identity) -> None:
        """How a worker ended is recorded: nobody will ask again."""


@dataclass
class _Launched:
    kind: Kind | None
    parent: ForkServer | subprocess.Popen[bytes]  # who knows how it ends
    directory: Path  # of the attempt that it executes
    began: float  # monotonic
    channel: socket.socket | None  # None: it executes nothing more
    waits: bool = False


class LocalLauncher:
    """Workers as processes of this machine, each leading its own session."""

    def __init__(self, *, warm: bool = True, share: bool = True) -> None:
        """`warm`: fork workers of short runs; `share`: let workers execute many of them."""
        self._warm = WarmStart() if warm else None
        self._share = share
        self._launched: dict[int, _Launched] = {}

    def launch(self, directory: Path, order: Order, device_lock: int) -> Identity | None:
        variables = environment(os.environ, order) | {MARK: str(directory)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ExitStack() as unless_launched, theirs, (directory / LOG).open("ab") as log:
            unless_launched.callback(ours.close)
            inherited = Descriptors(log.fileno(), device_lock, theirs.fileno())
            parent, identity = self._forked(directory, order, variables, inherited) or (
                _spawned(directory, order, variables, inherited)
            )
            if identity is not None:
                unless_launched.pop_all()
                self._launched[identity.pid] = _Launched(
                    kind(order), parent, directory, monotonic(), ours
                )
        return identity

    def _forked(
        self,
        directory: Path,
        order: Order,
        variables: Mapping[str, str],
        inherited: Descriptors,
    ) -> tuple[ForkServer | subprocess.Popen[bytes], Identity | None] | None:
        """A worker forked from one that is prepared for its kind; None: there is none."""
        its_kind = kind(order)
        if self._warm is None or its_kind is None:
            return None
        return self._warm.fork(its_kind, directory, variables, inherited)

    def waits(self, identity: Identity) -> bool:
        launched = self._launched.get(identity.pid)
        if launched is None:
            return False
        if launched.channel is not None and not launched.waits:
            self._listen(launched, launched.channel)
        return launched.waits

    def hand_over(self, identity: Identity, directory: Path) -> None:
        launched = self._launched[identity.pid]
        self._was_over(launched)
        launched.directory, launched.began, launched.waits = directory, monotonic(), False
        if launched.channel is not None:
            with suppress(OSError):  # its attempt ends as that of any worker that died
                launched.channel.send(os.fsencode(directory))

    def release(self, identity: Identity) -> None:
        launched = self._launched.get(identity.pid)
        if launched is not None:
            _close(launched)

    def channels(self) -> list[int]:
        """Descriptors that become readable when a worker has something to say."""
        return [
            launched.channel.fileno()
            for launched in self._launched.values()
            if launched.channel is not None and not launched.waits
        ]

    def exit_status(self, identity: Identity) -> int | None:
        launched = self._launched.get(identity.pid)
        if launched is None:
            return None
        if isinstance(launched.parent, ForkServer):
            return launched.parent.exit_status(identity.pid)
        return launched.parent.poll()

    def forget(self, identity: Identity) -> None:
        launched = self._launched.pop(identity.pid, None)
        if launched is not None:
            _close(launched)
            self._was_over(launched)

    def close(self) -> None:
        """Nothing is launched any more; workers go on with what they execute."""
        for launched in self._launched.values():
            _close(launched)
        if self._warm:
            self._warm.close()

    def _listen(self, launched: _Launched, channel: socket.socket) -> None:
        """Hear whether a worker waits for another attempt."""
        try:
            said = channel.recv(MAX_PATH_BYTES)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if self._share and said == os.fsencode(launched.directory):
            launched.waits = True
        else:
            _close(launched)  # it leaves

    def _was_over(self, launched: _Launched) -> None:
        if self._warm and launched.kind:
            self._warm.ended(launched.kind, monotonic() - launched.began)


def _close(launched: _Launched) -> None:
    if launched.channel is not None:
        launched.channel.close()
    launched.channel, launched.waits = None, False


def _spawned(
    directory: Path, order: Order, variables: Mapping[str, str], inherited: Descriptors
) -> tuple[subprocess.Popen[bytes], Identity | None]:
    """A worker that loads its libraries itself."""
    process = subprocess.Popen(
        # -P: a folder called jobs where we happen to stand must not shadow ours.
        [interpreter(order), "-P", "-m", "ftd.worker", str(inherited.channel), str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=inherited.log,
        stderr=inherited.log,
        cwd=directory,
        env=variables,
        start_new_session=True,
        pass_fds=(inherited.device_lock, inherited.channel),
    )
    return process, identity_of(process.pid)


def interpreter(order: Order) -> str:
    """The Python that executes an order: the one it names, or ours."""
    return order.inputs.get(INTERPRETER, {}).get("where", sys.executable)


def environment(inherited: Mapping[str, str], order: Order) -> dict[str, str]:
    """A worker's environment: what may be inherited, its one device, its threads."""
    threads = str(order.threads)
    return inheritable(inherited) | {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": order.device_id if order.device_kind == "gpu" else "",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
    }
