"""What enqueueing a spec would do: its cells, their runs, and what is known of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from ftd.ledger.history import Estimate
from ftd.planning.plan import Place, Plan
from ftd.spec.confounding import confounded
from ftd.states import RunState
from ftd.views.phrases import count, duration, level, size
from ftd.views.table import Table, table

Known = Mapping[str, tuple[int, RunState]]  # run key -> (run id, state)

_ACTIONS = {
    RunState.QUEUED: "shared",
    RunState.RUNNING: "shared",
    RunState.DONE: "kept",
    RunState.HELD: "queued again",
    RunState.FAILED: "queued again",
    RunState.CANCELLED: "queued again",
}


def as_json(plan: Plan, known: Known, estimate: Estimate | None = None) -> dict[str, Any]:
    """The object of ``ftd enqueue --dry-run --json``; new + shared = number of distinct runs."""
    states = [known[run.key][1] for run in plan.runs if run.key in known]
    return {
        "experiment": plan.name,
        "job": plan.job,
        "runs": len(plan.runs),
        "new": len(plan.runs) - len(states),
        "shared": len(states),
        "done": states.count(RunState.DONE),
        "requeued": sum(_ACTIONS[state] == "queued again" for state in states),
        "replicates": plan.replicates,
        "candidates": plan.candidates,
        "estimated_device_s": estimate.device_s if estimate else None,
        "estimated_disk_bytes": estimate.disk_bytes if estimate else None,
        "estimated_from_runs": estimate.num_known if estimate else 0,
        "confounded": [list(pair) for pair in confounded(plan.cells)],
        "bundles": {name: list(paths) for name, paths in plan.bundles.items()},
        "cells": [
            {
                "cell": cell,
                "factors": dict(plan.cells[cell]),
                "labels_used": plan.labels_used[cell] if plan.labels_used else "",
                "runs": [_place_json(place, known) for place in places],
            }
            for cell, places in _by_cell(plan).items()
        ],
    }


def tables(plan: Plan, known: Known, estimate: Estimate | None = None) -> list[Table]:
    """One row per cell, and what would happen in all."""
    names = list(dict.fromkeys(name for cell in plan.cells for name in cell))
    rows = []
    for cell, places in _by_cell(plan).items():
        chosen = plan.cells[cell]
        labels = [level(chosen[name]) if name in chosen else "-" for name in names]
        rows.append(
            (
                str(cell), *labels, *plan.labels_used[cell : cell + 1], str(len(places)),
                _told(places, known),
            )
        )  # fmt: skip
    summed = as_json(plan, known)
    distinct = summed["runs"]
    tried = f" x {count(plan.candidates, 'candidate')}" if plan.outline.tuning else ""
    notes = [
        f"{count(len(plan.cells), 'cell')} x {count(plan.replicates, 'replicate')}{tried} = "
        f"{count(distinct, 'distinct run')}: {summed['new']:,} new, {summed['shared']:,} known "
        f"({summed['done']:,} done, {summed['requeued']:,} to be queued again)"
    ]
    if distinct < len(plan.places):
        notes.append(
            f"{count(len(plan.places), 'place')} need only {count(distinct, 'run')}: "
            "cells that differ in nothing that matters share theirs"
        )
    notes += _estimated(estimate)
    notes += [
        f"warning: {one} and {other} always change together, so nothing can tell which of the two "
        "matters"
        for one, other in confounded(plan.cells)
    ]
    notes += [
        f"levels of {name} differ in {', '.join(paths[:-1])} and {paths[-1]}: what differs between "
        "them is the effect of all these together"
        for name, paths in plan.bundles.items()
    ]
    notes.append("nothing was written")
    title = f"{plan.name}: what enqueueing it would do"
    labels_used = ("labels used",) if plan.labels_used else ()
    headings = (">cell", *names, *labels_used, ">runs", "what would happen")
    return [table(title, headings, rows, notes=notes)]


def _estimated(estimate: Estimate | None) -> list[str]:
    if estimate is None or estimate.device_s is None:
        return ["device time: not known, no run of this job is done here yet"]
    if not estimate.num_runs:
        return []
    told = f"device time: about {duration(estimate.device_s)}"
    if estimate.disk_bytes:
        told += f", disk: about {size(round(estimate.disk_bytes))},"
    return [
        f"{told} for {count(estimate.num_runs, 'run')}, going by "
        f"{count(estimate.num_known, 'run')} of this job that are done ({estimate.num_alike:,} of "
        "them have their like there)"
    ]


def _by_cell(plan: Plan) -> dict[int, list[Place]]:
    found: dict[int, list[Place]] = defaultdict(list)
    for place in plan.places:
        found[place.cell].append(place)
    return found


def _told(places: list[Place], known: Known) -> str:
    counted: Counter[str] = Counter()
    for place in places:
        if place.run_key in known:
            state = known[place.run_key][1]
            counted[f"{state} ({_ACTIONS[state]})"] += 1
        else:
            counted["new"] += 1
    return ", ".join(f"{number} {what}" for what, number in counted.items())


def _place_json(place: Place, known: Known) -> dict[str, Any]:
    run_id, state = known.get(place.run_key, (None, None))
    return {
        "replicate": place.replicate,
        "candidate": place.candidate,
        "tuned": dict(place.tuned),
        "key": place.run_key,
        "id": None if run_id is None else f"r{run_id}",
        "state": None if state is None else str(state),
        "action": "new" if state is None else _ACTIONS[state],
    }
