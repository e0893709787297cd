"""Runs as a list."""

from __future__ import annotations

from collections.abc import Sequence

from ftd.ledger.rows import RunRow
from ftd.views.phrases import duration, factors
from ftd.views.status import result
from ftd.views.table import Table, table


def run_table(rows: Sequence[RunRow]) -> Table:
    """One line per run: where it stands and what came out."""
    return table(
        "",
        ("run", "experiments", "cell", "state", ">attempts", ">cost", "result"),
        (
            (
                f"r{row.id}",
                ", ".join(row.experiments),
                factors(row.factors, row.replicate),
                row.state,
                str(row.attempts),
                duration(row.cost_actual_s) if row.attempts else "-",
                result(row),
            )
            for row in rows
        ),
        empty="no such runs",
    )
