"""What people type for experiments and runs: names, ``e7``, ``r123``."""

from __future__ import annotations

import re

from ftd.errors import UnknownName, closest
from ftd.ledger.db import Ledger
from ftd.ledger.models import Experiment, Membership, Run


def experiment_id(ledger: Ledger, text: str) -> int:
    """The experiment meant by ``e7`` or by a name (its newest revision).

    Raises UnknownName with the closest name.
    """
    if match := re.fullmatch(r"e(\d{1,18})", text):
        query = Experiment.select(Experiment.id).where(Experiment.id == int(match[1]))
    else:
        query = (
            Experiment.select(Experiment.id)
            .where(Experiment.name == text)
            .order_by(Experiment.id.desc())
        )
    row = ledger.row(query)
    if row is None:
        names = ledger.values(Experiment.select(Experiment.name).distinct())
        raise UnknownName(
            f"no experiment {text}", fix=closest(text, names) or "'ftd status' lists what there is"
        )
    return int(row["id"])


def run_id(ledger: Ledger, text: str) -> int:
    """The run meant by ``r123`` (or ``123``).  Raises UnknownName."""
    match = re.fullmatch(r"r?(\d{1,18})", text)
    row = match and ledger.row(Run.select(Run.id).where(Run.id == int(match[1])))
    if not row:
        raise UnknownName(f"no run {text}", fix="'ftd runs' lists them; a run is written r123")
    return int(row["id"])


def is_run(text: str) -> bool:
    """Whether `text` has the form of a run id."""
    return re.fullmatch(r"r?\d+", text) is not None


def memberships(ledger: Ledger, targets: list[str]) -> list[int]:
    """Ids of all memberships meant by runs and experiments.  Raises UnknownName."""
    found: list[int] = []
    for text in targets:
        if is_run(text):
            chosen = Membership.run == run_id(ledger, text)
        else:
            chosen = Membership.experiment == experiment_id(ledger, text)
        found += ledger.values(Membership.select(Membership.id).where(chosen))
    return list(dict.fromkeys(found))
