"""Why a run waits, in words.  A reason is computed when somebody asks, never stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftd.ledger.data_waits import is_wait
from ftd.ledger.rows import DeviceRow, WaitingRow
from ftd.states import RunState

MAX_NAMED = 5
_WAYS_OUT = {RunState.HELD: "release", RunState.CANCELLED: "retry", RunState.FAILED: "retry"}


def reason(
    row: WaitingRow,
    devices: Sequence[DeviceRow],
    *,
    daemon_up: bool,
    short_of_space: str | None,
    now: float,
) -> str:
    """Why the queued or held run `row` does not execute at `now` (UTC seconds).

    `short_of_space` is why the disk lets nothing start.
    """
    if row.state == RunState.HELD:
        why = f": {row.held_why}" if row.held_why else ""
        return f"held by {row.held_by}{why}"
    if row.needs:
        return _needs(row.needs)
    if not daemon_up:
        return "no daemon is running"
    if not row.admitted:
        return "not yet pulled from the queue"
    if short_of_space is not None:
        return short_of_space
    later_s = max((row.not_before or 0.0) - now, 0.0)
    if is_wait(row.error):
        again = f"in {later_s:.0f} s" if later_s else "next"
        return f"waits for {row.error}; looks again {again}"
    if later_s:
        why = f" after: {row.error}" if row.error else ""
        return f"tries again in {later_s:.0f} s{why}"
    return _resources([device for device in devices if device.kind == row.device_kind], row)


def _needs(needs: Mapping[int, RunState]) -> str:
    """``needs r3, which is running``; what only a person can change comes with what to do."""
    parts = []
    for state in dict.fromkeys(needs.values()):
        runs = [f"r{run}" for run, found in needs.items() if found == state]
        shown = ", ".join(runs[:MAX_NAMED]) + (" and others" if len(runs) > MAX_NAMED else "")
        part = f"{shown}, which {'is' if len(runs) == 1 else 'are'} {state}"
        if state in _WAYS_OUT:
            part += f" (ftd {_WAYS_OUT[state]} {runs[0]})"
        parts.append(part)
    return "needs " + "; ".join(parts)


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
