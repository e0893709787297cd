"""Starting workers: one interface, so that something else than a local process may follow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ftd.clock import monotonic
from ftd.daemon.fork_server import ForkServer
from ftd.daemon.remains import MARK
from ftd.daemon.warm_start import Kind, WarmStart
from ftd.environment import inheritable
from ftd.process import Identity, identity_of
from ftd.protocol import LOG, Order
from ftd.source import INTERPRETER


class Launcher(Protocol):
    """Starts the worker of an attempt and knows how it ended, as far as that can be known."""

    def launch(self, directory: Path, order: Order, device_lock: int) -> Identity | None:
        """Start a worker; its identity, None if it ended at once.  Raises OSError if it cannot."""

    def exit_status(self, identity: Identity) -> int | None:
        """Exit status (negative: signal) of a worker launched here that has ended, else None."""

    def forget(self, identity: Identity) -> None:
        """How a worker ended is recorded: nobody will ask again."""


@dataclass(frozen=True)
class _Launched:
    kind: Kind | None
    began: float  # monotonic
    parent: ForkServer | subprocess.Popen[bytes]  # who knows how it ends


class LocalLauncher:
    """Workers as processes of this machine, each leading its own session."""

    def __init__(self, *, warm: bool = True) -> None:
        self._warm = WarmStart() if warm else None
        self._launched: dict[int, _Launched] = {}

    def launch(self, directory: Path, order: Order, device_lock: int) -> Identity | None:
        variables = environment(os.environ, order) | {MARK: str(directory)}
        kind = self._warm.kind(order) if self._warm else None
        parent: ForkServer | subprocess.Popen[bytes]
        with (directory / LOG).open("ab") as log:
            forked = None
            if self._warm and kind:
                forked = self._warm.fork(
                    kind, directory, variables, log=log.fileno(), device_lock=device_lock
                )
            if forked is not None:
                parent, identity = forked
            else:
                parent = subprocess.Popen(
                    # -P: a folder called jobs where we happen to stand must not shadow ours.
                    [interpreter(order), "-P", "-m", "ftd.worker", str(directory)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=directory,
                    env=variables,
                    start_new_session=True,
                    pass_fds=(device_lock,),
                )
                identity = identity_of(parent.pid)
        if identity is not None:
            self._launched[identity.pid] = _Launched(kind, monotonic(), parent)
        return identity

    def exit_status(self, identity: Identity) -> int | None:
        launched = self._launched.get(identity.pid)
        if launched is None:
            return None
        if isinstance(launched.parent, ForkServer):
            return launched.parent.exit_status(identity.pid)
        return launched.parent.poll()

    def forget(self, identity: Identity) -> None:
        launched = self._launched.pop(identity.pid, None)
        if self._warm and launched and launched.kind:
            self._warm.ended(launched.kind, monotonic() - launched.began)

    def close(self) -> None:
        """Nothing is launched any more; workers go on."""
        if self._warm:
            self._warm.close()


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
