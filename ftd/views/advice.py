"""Advice for a target: what is known, what follows, what to run to know more."""

from __future__ import annotations

import math

from ftd.stats.advice import (
    NEGLIGIBLE,
    SIMILAR_DISTANCE,
    SIMILAR_SIZE,
    Advice,
    Neighbour,
)
from ftd.stats.known_distances import Distances
from ftd.stats.spread import CONFIDENCE, Interval
from ftd.views.advice_specs import Asked, specs
from ftd.views.phrases import count, number, run_ids
from ftd.views.table import Table, table

MEANT = {
    "tune": "tune: fine-tuning the copied layers was better",
    "freeze": "freeze: training only what is new was better, and is much cheaper",
    "either": "either: what difference there is is negligible; freezing is much cheaper",
    "undecided": "undecided: the differences are less clear than they are wide; more replicates "
    "would tell",
    "contradictory": "it depends: some settings speak for tuning, others for freezing",
    "unknown": "unknown: there is no such evidence here",
}


def tables(found: Advice, asked: Asked) -> list[Table]:
    """The advice as tables for people."""
    return [
        _head(found, asked),
        *_distances(found),
        _chu(found),
        _evidence(found, asked),
        _verdict(found),
        _boundary(found),
        *_to_run(found, asked),
    ]


def _head(found: Advice, asked: Asked) -> Table:
    question, labels = found.question, asked.labels
    train = labels["train"]
    have = f"{min(train):,}" if min(train) == max(train) else f"{min(train):,} to {max(train):,}"
    notes = [
        f"{count(len(labels['class_names']), 'class').replace('classs', 'classes')}, "
        f"{have} training images in each"
        + (f"; advice for {question.num_per_class:,.0f} of each" if asked.is_given else ""),
    ]
    if question.model or question.weights:
        wanted = (question.model, question.weights)
        notes.append("network: " + ", ".join(text for text in wanted if text))
    return table(f"target {question.target.name}", (), (), notes=notes)


def _distances(found: Advice) -> list[Table]:
    """Ranks among known targets, for the best-known measure of each network."""
    shown: list[Distances] = []
    for one in found.distances:
        if all(one.network != other.network for other in shown):
            shown.append(one)
    return [_ranking(one, found) for one in shown]


def _ranking(one: Distances, found: Advice) -> Table:
    key = found.question.target.key
    order = one.ranked()
    source = f" from {one.source}" if one.source else ""
    return table(
        f"distance{source} by {one.measure} ({one.network}, layer {one.layer}): "
        f"rank {order.index(key) + 1} of {len(order)}",
        (">rank", "target", f">{one.measure}", "runs"),
        (
            (
                str(place),
                one.names[other] + (" <" if other == key else ""),
                number(one.by_target[other]),
                run_ids(one.run_ids[other]),
            )
            for place, other in enumerate(order, start=1)
        ),
    )


def _chu(found: Advice) -> Table:
    if found.chu is None:
        text = (
            "does not apply: its distances are cosines of AlexNet's fc7 with ImageNet weights; "
            "the ranks above and your own runs say more"
            if found.distances
            else "no distance to look it up with"
        )
    else:
        text = f"{found.chu} (if the source that was compared with is ImageNet, or like it)"
    return table("", (), (), notes=(f"table 3 of Chu et al. 2016: {text}",))


def _evidence(found: Advice, asked: Asked) -> Table:
    return table(
        f"tuned - frozen, by {asked.metric}",
        ("target", "network", "layers", ">images per class", ">distance", ">replicates", ">mean",
         f"{CONFIDENCE:.0%} interval", "near", "experiment", "runs (tuned and frozen)"),
        (_comparison(one) for one in found.neighbours),
        empty="no runs that differ only in freezing or tuning the same layers",
        notes=(
            f"near: the same target or a similar distance (within {SIMILAR_DISTANCE:.0%} of the "
            f"range of known ones), and up to {SIMILAR_SIZE:g} times as many or few images",
            "shown: the networks' comparisons that copied the most layers; (=): at one learning "
            "rate for both, which favours one of them",
            "interval: Student's t over replicates, each for itself (not corrected for looking at "
            "many)",
        )
        if found.neighbours
        else (),
    )  # fmt: skip


def _comparison(one: Neighbour) -> tuple[str, ...]:
    told = one.comparison
    return (
        told.target.name,
        str(told.network),
        told.layers,
        f"{told.num_per_class:,.0f}",
        number(one.distance),
        str(told.difference.n),
        number(told.difference.mean, signed=True),
        _interval(told.interval) + ("" if told.chosen else " (=)"),
        f"yes: {one.why}" if one.is_near else one.why,
        f"e{told.experiment}",
        run_ids(sorted({run for pair in told.pairs for run in pair})),
    )


def _interval(found: Interval | None) -> str:
    if found is None:
        return "none"
    return f"{number(found.low, signed=True)} to {number(found.high, signed=True)}"


def _verdict(found: Advice) -> Table:
    told = found.verdict
    notes = [MEANT[told.word]]
    if told.num_settings:
        over = f", {_interval(told.interval)} over settings" if told.interval else ""
        notes.append(
            f"{count(told.num_settings, 'near setting')}: {told.num_for} with an interval above 0, "
            f"{told.num_against} below, {told.num_negligible} within {NEGLIGIBLE:g} of 0; mean "
            f"{number(told.difference.mean, signed=True)}{over}"
        )
        if told.word == "unknown":
            notes.append("too few replicates for an interval: three are the least")
    return table("advice", (), (), notes=notes)


def _boundary(found: Advice) -> Table:
    title = "boundary: tuned - frozen = a + b distance + c log10(images per class)"
    line = found.boundary
    if line is None:
        return table(title, (), (), notes=(f"not fitted: {found.no_boundary}",))
    notes = [
        f"a {number(line.constant, signed=True)}, b {number(line.slope_distance, signed=True)}, "
        f"c {number(line.slope_size, signed=True)}, from {line.num_points} targets and sizes"
    ]
    scale = next(iter(found.distances), None)
    if scale is not None:
        distance = scale.by_target[found.question.target.key]
        here = line.difference(distance, found.question.num_per_class)
        notes.append(f"here: {_interval(here)} ({CONFIDENCE:.0%} interval of the mean difference)")
        notes.append(_turning_point(found, distance))
    return table(title, (), (), notes=notes)


def _turning_point(found: Advice, distance: float) -> str:
    line = found.boundary
    assert line is not None, "asked only then"
    size, limits = line.num_per_class(distance), line.num_per_class_interval(distance)
    if size is None or limits is None:
        return "at this distance the runs do not show that more images favour tuning"
    outside = " (outside of what was tried)" if not line.smallest <= size <= line.largest else ""
    return (
        f"at this distance tuning is better from {_size(size)} images per class on{outside}; "
        f"{CONFIDENCE:.0%} interval {_size(limits.low)} to {_size(limits.high)}"
    )


def _size(value: float) -> str:
    return "any number of" if math.isinf(value) else f"{value:,.3g}"


def _to_run(found: Advice, asked: Asked) -> list[Table]:
    parts = [
        table(f"to know {why}, enqueue this spec", (), (), notes=tuple(text.splitlines()))
        for why, text in specs(found, asked).items()
    ]
    without = dict.fromkeys(
        one.comparison.target.name for one in found.neighbours if one.distance is None
    )
    if without:
        names = "; ".join(without)
        parts.append(table("", (), (), notes=(f"the distance of these would help too: {names}",)))
    return parts
