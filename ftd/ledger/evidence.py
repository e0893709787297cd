"""What finished runs tell about adapting networks: which were compared how, on which images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ftd.errors import UnknownName
from ftd.ledger.db import Ledger, chunks
from ftd.ledger.models import Event, Experiment, Membership, Run
from ftd.ledger.names import experiment_id, memberships
from ftd.states import RunState


@dataclass(frozen=True)
class RunFacts:
    """The question that a finished run answered, and what it measured.

    `inputs` are what it read, as planned; `num_per_class` is its mean number of training images per
    class, None where it did not say.
    """

    run_id: int
    params: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, float]
    flags: tuple[str, ...]
    num_per_class: float | None


def experiments_of(ledger: Ledger, job: str) -> list[int]:
    """Experiments of a job that have finished runs, newest first."""
    query = (
        Membership.select(Membership.experiment)
        .join(Run)
        .switch(Membership)
        .join(Experiment)
        .where(Experiment.job == job, Run.state == RunState.DONE)
        .distinct()
    )
    return sorted(ledger.values(query), reverse=True)


def runs_of(ledger: Ledger, job: str) -> list[int]:
    """Finished runs of a job."""
    query = Run.select(Run.id).where(Run.job == job, Run.state == RunState.DONE)
    return sorted(ledger.values(query))


def facts(ledger: Ledger, run_ids: Sequence[int]) -> dict[int, RunFacts]:
    """What finished runs were about, by id."""
    found = {}
    for some in chunks(sorted(set(run_ids))):
        sizes = _num_per_class(ledger, some)
        query = Run.select(Run.id, Run.params, Run.inputs, Run.metrics, Run.flags)
        for row in ledger.rows(query.where(Run.id.in_(some))):
            found[row["id"]] = RunFacts(
                row["id"],
                row["params"],
                row["inputs"],
                row["metrics"] or {},
                tuple(row["flags"] or ()),
                sizes.get(row["id"]),
            )
    return found


def models_of(ledger: Ledger, text: str) -> list[str]:
    """The networks of a run or experiment, as people name it.  Raises UnknownName."""
    runs = Membership.select(Membership.run).where(Membership.id.in_(memberships(ledger, [text])))
    found = ledger.values(Run.select(Run.params).where(Run.id.in_(runs)))
    return sorted({params["model"]["name"] for params in found if "model" in params})


def num_replicates(ledger: Ledger, text: str) -> int:
    """How many replicates the experiment has that people name so; 0: there is none."""
    with suppress(UnknownName):
        chosen = Membership.experiment == experiment_id(ledger, text)
        return len(set(ledger.values(Membership.select(Membership.replicate).where(chosen))))
    return 0


def _num_per_class(ledger: Ledger, run_ids: Sequence[int]) -> dict[int, float]:
    """From what runs noted about their data; the last attempt's note counts."""
    query = (
        Event.select(Event.run, Event.data)
        .where(Event.kind == "data", Event.run.in_(list(run_ids)))
        .order_by(Event.id)
    )
    sizes = {}
    for row in ledger.rows(query):
        counts = (row["data"] or {}).get("images_per_class", {}).get("train")
        if counts:
            sizes[row["run"]] = sum(counts) / len(counts)
    return sizes
