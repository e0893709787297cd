"""What was chosen where parameters are tuned, and whether their grids were wide enough."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from ftd.stats.selection import Choice, Trial
from ftd.stats.summary import Summary
from ftd.views.phrases import count, level
from ftd.views.table import Table, table


def chosen_candidates(found: Summary) -> list[Table]:
    """A row per cell: the levels chosen there, how often, and choices on the edge of a grid."""
    tuning = found.outline.tuning
    if tuning is None:
        return []
    factors = {one.cell: one.factors for one in found.cells}
    names = [factor.factor for factor in found.factors]
    tuned = list(found.choices[0].trials[0].tuned) if found.choices else []
    rows = []
    by_cell: dict[int, list[Choice]] = defaultdict(list)
    for choice in found.choices:
        by_cell[choice.trials[0].cell].append(choice)
    for cell, choices in by_cell.items():
        made = [choice for choice in choices if choice.chosen is not None]
        levels = factors[cell]
        rows.append(
            (
                str(cell),
                *(level(levels[name]) if name in levels else "-" for name in names),
                *(_counted(made, name) for name in tuned),
                _edges(made),
            )
        )
    notes = [
        f"chosen by {tuning.select}, of {count(len(found.choices[0].trials), 'candidate')}: "
        + ("each replicate for itself" if tuning.per == "replicate" else "one for each cell")
    ] if found.choices else []  # fmt: skip
    notes += _warnings(found)
    return [table("tuned", (">cell", *names, *tuned, "on the edge"), rows, notes=notes)]


def _counted(made: list[Choice], name: str) -> str:
    counted = Counter(level(choice.chosen.tuned[name]) for choice in made if choice.chosen)
    return ", ".join(label if times == 1 else f"{label} ({times}x)"
                     for label, times in counted.most_common())  # fmt: skip


def _edges(made: list[Choice]) -> str:
    counted = Counter(name for choice in made for name in choice.at_edge)
    return ", ".join(f"{name}: {times} of {len(made)}" for name, times in counted.items())


def _warnings(found: Summary) -> list[str]:
    cells: dict[str, set[int]] = defaultdict(set)
    for choice in found.choices:
        for name in choice.at_edge:
            cells[name].add(choice.trials[0].cell)
    return [
        f"warning: in {len(numbers)} of {count(len(found.cells), 'cell')} the best {name} is the "
        "smallest or largest of its grid; a better one may lie beyond, so widen it"
        for name, numbers in cells.items()
    ]


def choices_json(found: Summary) -> dict[str, Any]:
    """What ``ftd summary --json`` says of tuned parameters: every candidate with its run."""
    tuning = found.outline.tuning
    if tuning is None:
        return {"tuned": None}
    return {
        "tuned": {
            "select": tuning.select,
            "per": tuning.per,
            "choices": [
                {
                    "cell": one.trials[0].cell,
                    "replicate": one.trials[0].replicate,
                    "chosen": None if one.chosen is None else _trial_json(one.chosen),
                    "score": one.score,
                    "at_edge": list(one.at_edge),
                    "absent": one.absent,
                    "candidates": [_trial_json(trial) for trial in one.trials],
                }
                for one in found.choices
            ],
        }
    }


def _trial_json(trial: Trial) -> dict[str, Any]:
    return {
        "run": f"r{trial.run_id}",
        "candidate": trial.candidate,
        "tuned": dict(trial.tuned),
        "score": trial.score,
    }
