"""Which workers are forked from a process that has their job's libraries loaded.

Loading them takes seconds, which only matters where runs are short: a kind of run gets such a
process when one of that kind was over soon, and keeps it while more of them follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ftd.catalog import BUILT_IN
from ftd.daemon.fork_server import Descriptors, ForkServer
from ftd.process import Identity
from ftd.protocol import Order
from ftd.source import CODE

SHORT_S = 60.0


@dataclass(frozen=True)
class Kind:
    """What workers must share to have the same parent: libraries read the threads when loaded."""

    job: str
    threads: int


def kind(order: Order) -> Kind | None:
    """The kind of an order; None when its worker always starts by itself, for it alone.

    Code that is not ours is only ever loaded by the worker that executes it.
    """
    own = order.job not in BUILT_IN or any(name in order.inputs for name in CODE)
    return None if own else Kind(order.job, order.threads)


class WarmStart:
    """Fork servers by kind of run."""

    def __init__(self) -> None:
        self._servers: dict[Kind, ForkServer] = {}
        self._short: set[Kind] = set()

    def fork(
        self,
        kind: Kind,
        directory: Path,
        environment: Mapping[str, str],
        descriptors: Descriptors,
    ) -> tuple[ForkServer, Identity | None] | None:
        """Who knows how a forked worker ends, and the worker; None: start one the slow way.

        When runs of this kind are short, that is prepared for the next.
        """
        server = self._servers.get(kind)
        if server is None:
            if kind in self._short:
                unbound = {**environment, "CUDA_VISIBLE_DEVICES": ""}
                self._servers[kind] = ForkServer(kind.job, unbound)
            return None
        if not server.ready():
            if server.gone():
                del self._servers[kind]
                self._short.remove(kind)  # nothing to load, or it cannot be loaded
            return None
        forked = server.fork(directory, environment, descriptors)
        if forked is None:
            del self._servers[kind]
            return None
        return server, forked.identity

    def ended(self, kind: Kind, ran_s: float) -> None:
        """A worker of this kind ran so long."""
        (self._short.add if ran_s < SHORT_S else self._short.discard)(kind)

    def close(self) -> None:
        """End all servers; their workers go on."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
