"""Which queued run starts next, and on which device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ftd.daemon.devices import Seen
from ftd.ledger.db import Ledger
from ftd.ledger.scheduling import eligible_runs


def assignments(ledger: Ledger, devices: Sequence[Seen], now: float) -> Iterator[tuple[int, str]]:
    """(run id, device id) pairs to start at `now`: free devices to eligible runs.

    Runs go by priority, then by age; each gets a device of the kind it was planned for.
    """
    for kind in ("gpu", "cpu"):
        free = [device.id for device in devices if device.kind == kind and device.state == "free"]
        if free:
            yield from zip(eligible_runs(ledger, kind, now, len(free)), free, strict=False)
