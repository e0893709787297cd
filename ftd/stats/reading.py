"""From the places of an experiment to observations: one per cell and replicate, none left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftd.outline import Outline
from ftd.states import RunState
from ftd.stats.observations import Observation
from ftd.stats.selection import Choice, Trial, choices

if TYPE_CHECKING:
    from ftd.ledger.places import PlaceRow
    from ftd.ledger.rows import RunRow


Figures = Mapping[int, Mapping[str, float]]
NO_FIGURES: Figures = {}


def chosen(rows: Sequence[PlaceRow], outline: Outline) -> list[Choice]:
    """What is chosen at each cell and replicate; empty for an experiment that tunes nothing."""
    if outline.tuning is None:
        return []
    trials = []
    for row in rows:
        score, absent = _value(row.run, outline.tuning.select)
        trials.append(
            Trial(row.run.id, row.cell, row.replicate, row.candidate, row.tuned, score, absent)
        )
    return choices(trials, outline.tuning)


def observed(
    rows: Sequence[PlaceRow],
    found: Sequence[Choice],
    metric: str,
    outline: Outline,
    figures: Figures = NO_FIGURES,
) -> list[Observation]:
    """What every cell and replicate says about `metric`, or why it says nothing.

    Of several candidates the chosen one speaks, and the cost is that of trying them all.
    `figures` are speeds and sizes of runs, by id.
    """
    by_place: dict[tuple[int, int], list[PlaceRow]] = defaultdict(list)
    for row in rows:
        by_place[row.cell, row.replicate].append(row)
    by_choice = {(one.trials[0].cell, one.trials[0].replicate): one for one in found}
    return [
        _observation(place, by_choice.get(where), metric, outline, figures)
        for where, place in by_place.items()
    ]


def _observation(
    place: Sequence[PlaceRow],
    choice: Choice | None,
    metric: str,
    outline: Outline,
    figures: Figures,
) -> Observation:
    candidate = choice.chosen.candidate if choice and choice.chosen else place[0].candidate
    row = next(row for row in place if row.candidate == candidate)
    value, absent = _value(row.run, metric)
    if choice and choice.chosen is None:
        value, absent = None, choice.absent
    run = row.run
    return Observation(
        run_id=run.id,
        cell=row.cell,
        replicate=row.replicate,
        factors=row.factors,
        value=value,
        absent=absent,
        cost_actual_s=sum({one.run.id: one.run.cost_actual_s for one in place}.values()),
        cost_alone_s=sum({one.run.id: one.run.cost_alone_s for one in place}.values()),
        flags=(
            *run.flags,
            *(("approximate",) if run.approximate else ()),
            *(f"whose source r{source} is near chance" for source in run.sources_at_chance),
        ),
        unit=row.replicate // outline.num_inner,
        figures=figures.get(run.id, {}),
    )


def _value(run: RunRow, metric: str) -> tuple[float | None, str]:
    """The final value of `metric`, or None and why there is none."""
    if run.state == RunState.DONE:
        value = run.metrics.get(metric)
        return value, "" if value is not None else f"done, without {metric}"
    return None, f"{run.state}: {run.error}" if run.error else str(run.state)
