"""Where a run stands in the experiments that share it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Experiment, Membership


@dataclass(frozen=True)
class Standing:
    """The experiments that share a run; the rest as the one asked about, else the first, has it.

    `factors` are its cell's levels and, after them, what is tuned.
    """

    experiments: tuple[str, ...]
    owner: str
    primary_metric: str
    factors: Mapping[str, Any]
    cell: int
    replicate: int
    admitted: bool
    wished_by: str
    wished_why: str


def standings(
    ledger: Ledger, ids: Sequence[int], experiment: int | None = None
) -> dict[int, Standing]:
    """How each of some runs stands, as seen from `experiment` if that has it."""
    members: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for some in chunks(ids):
        query = (
            Membership.select(
                Membership.run,
                Membership.experiment,
                Membership.factors,
                Membership.tuned,
                Membership.cell,
                Membership.replicate,
                Membership.wished_by,
                Membership.wished_why,
                Experiment.name,
                Experiment.owner,
                Experiment.primary_metric,
                Experiment.admitted_at,
            )
            .join(Experiment)
            .where(Membership.run.in_(some))
            .order_by(Membership.id)
        )
        for row in ledger.rows(query):
            members[row["run"]].append(row)
    found = {}
    for run_id in ids:
        rows = members[run_id]
        shown = next((row for row in rows if row["experiment"] == experiment), rows[0])
        found[run_id] = Standing(
            experiments=tuple(dict.fromkeys(row["name"] for row in rows)),
            owner=shown["owner"],
            primary_metric=shown["primary_metric"],
            factors={**shown["factors"], **(shown["tuned"] or {})},
            cell=shown["cell"],
            replicate=shown["replicate"],
            admitted=any(row["admitted_at"] is not None for row in rows),
            wished_by=shown["wished_by"],
            wished_why=shown["wished_why"],
        )
    return found
