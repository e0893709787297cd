"""Starting workers: one interface, so that something else than a local process may follow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ftd.daemon.remains import MARK
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


class LocalLauncher:
    """Workers as processes of this machine, each leading its own session."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def launch(self, directory: Path, order: Order, device_lock: int) -> Identity | None:
        with (directory / LOG).open("ab") as log:
            child = subprocess.Popen(
                # -P: a folder called jobs where we happen to stand must not shadow ours.
                [interpreter(order), "-P", "-m", "ftd.worker", str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env=environment(os.environ, order) | {MARK: str(directory)},
                start_new_session=True,
                pass_fds=(device_lock,),
            )
        self._children[child.pid] = child
        return identity_of(child.pid)

    def exit_status(self, identity: Identity) -> int | None:
        child = self._children.get(identity.pid)
        if child is None:
            return None
        return child.poll()

    def forget(self, identity: Identity) -> None:
        self._children.pop(identity.pid, None)


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
