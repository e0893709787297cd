"""The devices as last seen, written only when something about them changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from ftd.ledger.db import Ledger
from ftd.ledger.models import Attempt, Device, Lease
from ftd.ledger.rows import DeviceRow


def devices(ledger: Ledger) -> list[DeviceRow]:
    """All devices ever seen, GPUs first."""
    leases = dict(
        Lease.select(Lease.device, Attempt.run)
        .join(Attempt, on=Attempt.worker == Lease.worker)
        .where(Lease.released_at.is_null())
        .tuples()
        .execute(ledger.db)
    )
    query = Device.select().order_by(Device.kind.desc(), Device.id)
    return [DeviceRow(**row, run_id=leases.get(row["id"])) for row in ledger.rows(query)]


def write(ledger: Ledger, seen: Sequence[DeviceRow]) -> None:
    """Record what was seen.  CPU slots no longer offered are dropped; GPUs are never forgotten."""
    before = {row.id: replace(row, run_id=None, seen_at=0.0) for row in devices(ledger)}
    after = {row.id: row for row in seen}
    changed = [row for row in seen if replace(row, seen_at=0.0) != before.get(row.id)]
    gone = [row.id for row in before.values() if row.id not in after and row.kind == "cpu"]
    if not changed and not gone:
        return
    with ledger.transaction():
        rows = []
        for row in changed:
            fields = asdict(row)
            del fields["run_id"]
            rows.append(fields)
        ledger.insert_all(Device, rows, replace=True)
        ledger.write(Device.delete().where(Device.id.in_(gone)))
