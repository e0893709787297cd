"""The workers of a home as their own directories tell, whoever follows them."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable

from ftd.files import read_json
from ftd.layout import Home
from ftd.process import Identity, alive, open_pidfd, send_signal
from ftd.protocol import WORKER


def at_work(home: Home) -> dict[tuple[int, int], Identity]:
    """(run id, attempt number) -> process of every worker that runs now and began that attempt.

    One that executes attempts in turn is found at each of them.
    """
    found = {}
    for said in sorted(home.root.glob(f"runs/r*/attempts/*/{WORKER}")):
        run, number = said.parents[2].name.removeprefix("r"), said.parent.name
        identity = Identity.from_json(read_json(said))
        if identity and alive(identity) and run.isdecimal() and number.isdecimal():
            found[int(run), int(number)] = identity
    return found


def ask_to_leave(workers: Iterable[Identity]) -> None:
    """Let workers save their state and leave, and wait until they have: as long as it takes."""
    descriptors = []
    for identity in dict.fromkeys(workers):
        descriptor = open_pidfd(identity)
        if descriptor is not None and send_signal(identity, signal.SIGTERM):
            descriptors.append(descriptor)
    for descriptor in descriptors:
        select.select([descriptor], [], [])
        os.close(descriptor)
