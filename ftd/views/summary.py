"""An experiment's summary: levels, paired differences, cells, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftd.stats.contrasts import MAX_LEVELS_ALL_PAIRS, Contrast
from ftd.stats.spread import CONFIDENCE, MIN_FOR_INTERVAL, Interval, Spread
from ftd.stats.summary import FactorSummary, Group, Summary
from ftd.views.choices import choices_json, chosen_candidates
from ftd.views.phrases import count, decimals, duration, level, number, run_ids
from ftd.views.table import Table, table


def tables(title: str, found: Summary, *, runs: bool = False) -> list[Table]:
    """The summary as tables; with `runs`, every row lists the runs behind it."""
    places = decimals(cell.group.measured.sd for cell in found.cells)
    return [
        _head(title, found),
        *(part for factor in found.factors for part in _factor(factor, found, places, runs)),
        _cells(found, places, runs),
        *chosen_candidates(found),
        _absent(found),
        _how_to_read(found),
    ]


def _head(title: str, found: Summary) -> Table:
    group = found.overall
    notes = [f"{title}: {found.metric or 'no metric'}, {group.num_measured} of "
             f"{count(group.num_planned, 'place')} measured"]  # fmt: skip
    if group.flags:
        notes.append("flagged: " + _counted(group.flags))
    return table("", (), (), notes=notes)


def _factor(factor: FactorSummary, found: Summary, places: int, runs: bool) -> list[Table]:
    title = f"{factor.role} {factor.factor}"
    if factor.nested:
        title += " (nested: only in cells where it exists)"
    levels = table(
        title,
        (factor.factor, *_number_headings(found.metric), *_more(runs)),
        (
            (level(one.level), *_numbers(one.group, places), *_ids(one.group, runs))
            for one in factor.levels
        ),
    )
    if not factor.contrasts:
        return [levels]
    notes = []
    if found.outline.baseline is not None:
        notes.append("each level is compared with the baseline's, all else at the baseline")
    elif len(factor.levels) > MAX_LEVELS_ALL_PAIRS:
        notes.append(
            f"{len(factor.levels)} levels: each is compared with the first only, {factor.factor}="
            f"{level(factor.levels[0].level)}"
        )
    conditional = factor.factor in found.outline.one_source
    if conditional:
        notes.append(
            f"each level of {factor.factor} is one source net: the differences are conditional on "
            "these, and have no interval; for one, give the source several replicates"
        )
    rows = [_contrast(one, places, runs, conditional) for one in factor.contrasts]
    headings = (
        "paired difference", ">pairs", ">mean", ">sd", f"{CONFIDENCE:.0%} interval",
        "runs matched", *_more(runs),
    )  # fmt: skip
    return [levels, table("", headings, rows, notes=notes)]


def _contrast(one: Contrast, places: int, runs: bool, conditional: bool) -> tuple[str, ...]:
    matched = f"{len(one.pairs)} of {one.num_possible}"
    if one.num_identical:
        matched += f" ({one.num_identical} the same run)"
    ids = [run for pair in one.pairs for run in pair]
    return (
        f"{level(one.level)} - {level(one.baseline)}",
        str(one.difference.n),
        number(one.difference.mean, places, signed=True),
        number(one.difference.sd, places),
        "conditional on one source net"
        if conditional
        else _interval(one.interval, one.difference.n, places),
        matched,
        *((run_ids(ids),) if runs else ()),
    )


def _interval(found: Interval | None, n: int, places: int) -> str:
    if found is None:
        return f"no interval from {count(n, 'pair')}" if n else "no pairs"
    low, high = (number(value, places, signed=True) for value in (found.low, found.high))
    return f"{low} to {high}" + ("" if found.low <= 0 <= found.high else " *")


def _cells(found: Summary, places: int, runs: bool) -> Table:
    names = [factor.factor for factor in found.factors]
    return table(
        "cells",
        (">cell", *names, *_number_headings(found.metric), *_more(runs)),
        (
            (
                str(one.cell),
                *(level(one.factors[name]) if name in one.factors else "-" for name in names),
                *_numbers(one.group, places),
                *_ids(one.group, runs),
            )
            for one in found.cells
        ),
    )  # fmt: skip


def _absent(found: Summary) -> Table:
    """Every reason for a missing value with its places; nothing is dropped silently."""
    return table(
        "not measured",
        (">places", "why"),
        ((str(times), why) for why, times in found.overall.absent.items()),
    )


def _how_to_read(found: Summary) -> Table:
    tried = "run" if found.outline.tuning is None else "place, of all its candidates together"
    notes = [
        "sd in factor tables: over all runs of the level, so other factors are in it",
        f"cost: mean device time of a {tried}, as if it had shared nothing with other runs",
    ]
    if any(factor.contrasts for factor in found.factors):
        notes += [
            "paired difference: between runs that differ in this factor only; those of a "
            f"{_unit(found)} are averaged to one pair",
            f"interval: Student's t over pairs, from {MIN_FOR_INTERVAL} on, each for itself "
            "(not corrected for looking at many); * does not contain 0",
        ]
    return table("", (), (), notes=notes)


def _unit(found: Summary) -> str:
    """What the pairs of an interval count."""
    for name, role in found.outline.roles.items():
        if role == "random":
            return f"level of {name}"
    return "replicate" if found.outline.num_inner == 1 else "repetition of the top seed stream"


def _number_headings(metric: str) -> tuple[str, ...]:
    return (">n", f">mean {metric}".rstrip(), ">sd", ">cost", "not measured, flags")


def _numbers(group: Group, places: int) -> tuple[str, ...]:
    n, whole = str(group.measured.n), group.num_measured == group.num_planned
    return (
        n if whole else f"{group.num_measured} of {group.num_planned}",
        number(group.measured.mean, places),
        number(group.measured.sd, places),
        duration(group.cost_alone_s),
        ", ".join(filter(None, (_counted(_states(group.absent)), _counted(group.flags)))),
    )


def _states(absent: Mapping[str, int]) -> dict[str, int]:
    """Counts by state alone; the reasons stand in a table of their own."""
    counted: dict[str, int] = {}
    for why, times in absent.items():
        state = why.partition(":")[0].partition(",")[0]
        counted[state] = counted.get(state, 0) + times
    return counted


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{times} {what}" for what, times in counts.items())


def _more(runs: bool) -> tuple[str, ...]:
    return ("runs",) if runs else ()


def _ids(group: Group, runs: bool) -> tuple[str, ...]:
    return (run_ids(group.run_ids, limit=1000),) if runs else ()


def as_json(found: Summary) -> dict[str, Any]:
    """The object of ``ftd summary --json``, beside the experiment's name."""
    return {
        "metric": found.metric,
        **_group_json(found.overall),
        "factors": [
            {
                "factor": factor.factor,
                "role": factor.role,
                "nested": factor.nested,
                "conditional_on_one_source": factor.factor in found.outline.one_source,
                "levels": [{"level": one.level, **_group_json(one.group)} for one in factor.levels],
                "differences": [_contrast_json(one) for one in factor.contrasts],
            }
            for factor in found.factors
        ],
        "cells": [
            {"cell": one.cell, "factors": dict(one.factors), **_group_json(one.group)}
            for one in found.cells
        ],
        "baseline": found.outline.baseline,
        **choices_json(found),
    }


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "planned": group.num_planned,
        "measured": group.num_measured,
        **_spread_json(group.measured),
        "cost_actual_s": group.cost_actual_s,
        "cost_alone_s": group.cost_alone_s,
        "timings": dict(group.figures),
        "absent": dict(group.absent),
        "flags": dict(group.flags),
        "runs": [f"r{run}" for run in group.run_ids],
    }


def _spread_json(found: Spread) -> dict[str, Any]:
    return {"n": found.n, "mean": found.mean, "sd": found.sd}


def _contrast_json(one: Contrast) -> dict[str, Any]:
    limits = one.interval
    return {
        "level": one.level,
        "baseline": one.baseline,
        **_spread_json(one.difference),
        "interval": None if limits is None else [limits.low, limits.high],
        "confidence": None if limits is None else limits.confidence,
        "pairs": [[f"r{run}" for run in pair] for pair in one.pairs],
        "possible_pairs": one.num_possible,
        "identical_pairs": one.num_identical,
    }
