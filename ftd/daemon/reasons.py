"""Why a run waits, in words.  A reason is computed when somebody asks, never stored."""

from __future__ import annotations

from collections.abc import Sequence

from ftd.ledger.reads import DeviceRow, WaitingRow
from ftd.states import RunState


def reason(
    row: WaitingRow,
    devices: Sequence[DeviceRow],
    *,
    daemon_up: bool,
    short_of_space: str | None,
    now: float,
) -> str:
    """Why the queued or held run `row` does not execute at `now` (UTC seconds).

    `short_of_space` is what :func:`ftd.diskspace.shortage` says of the home.
    """
    if row.state == RunState.HELD:
        why = f": {row.held_why}" if row.held_why else ""
        return f"held by {row.held_by}{why}"
    if row.needs:
        return "needs " + ", ".join(f"r{run}" for run in row.needs)
    if not daemon_up:
        return "no daemon is running"
    if not row.admitted:
        return "not yet pulled from the queue"
    if short_of_space is not None:
        return short_of_space
    if row.not_before is not None and row.not_before > now:
        return f"tries again in {row.not_before - now:.0f} s"
    return _resources([device for device in devices if device.kind == row.device_kind], row)


def _resources(devices: list[DeviceRow], row: WaitingRow) -> str:
    if not devices:
        return f"this machine offers no {row.device_kind}"
    counts: dict[str, list[DeviceRow]] = {}
    for device in devices:
        counts.setdefault(device.state, []).append(device)
    if "free" in counts:
        return "starts next"
    parts = []
    for state, some in sorted(counts.items()):
        details = {device.detail for device in some if device.detail and state != "leased"}
        parts.append(
            f"{len(some)} {state}" + (f" ({'; '.join(sorted(details))})" if details else "")
        )
    return f"waits for a {row.device_kind}: " + ", ".join(parts)
