"""Freeze or tune: what is known of a target's neighbourhood, and what follows from it.

Nothing here is more than it says: evidence is paired runs of this ledger, and where there is too
little the verdict is that nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ftd.stats.boundary import Boundary, Point, fit_boundary, why_no_boundary
from ftd.stats.comparisons import Comparison
from ftd.stats.known_distances import Distances
from ftd.stats.spread import Interval, Spread, interval, spread
from ftd.stats.subjects import Network, Target

SIMILAR_SIZE = 3.0  # up to so many times as many images per class, or as few
SIMILAR_DISTANCE = 0.25  # of the range of all targets' distances
FAVOURITES = (
    "cosine", "mmd", "mmd_rbf", "mmd_linear", "svm_accuracy", "a_distance", "cnn_accuracy",
)  # fmt: skip

# Chu, Madhavan, Beijbom, Hoffman, Darrell: Best practices for fine-tuning visual classifiers to new
# domains (ECCV workshops 2016), table 3: cosine distance of mean fc7 responses of AlexNet from
# ImageNet, against training images per class.
_CHU = (
    (0.2, ("freeze", "try both", "tune")),
    (0.4, ("try both", "tune", "tune")),
    (1.0, ("try both", "tune", "tune")),
)
_CHU_SIZES = (20, 99)
ALEXNET_FC7 = ("alexnet", "imagenet", "7")

NEGLIGIBLE = 0.02  # of a metric between 0 and 1: two points; a smaller difference is none
Word = Literal["tune", "freeze", "either", "undecided", "contradictory", "unknown"]


@dataclass(frozen=True)
class Question:
    """For whom advice is: a target with so many training images per class, and the network asked
    about (None: whichever there is evidence on)."""

    target: Target
    num_per_class: float
    model: str | None = None
    weights: str | None = None

    def asks_about(self, network: Network) -> bool:
        """Whether evidence on this network is asked for."""
        return network.fits(self.model, self.weights)


@dataclass(frozen=True)
class Neighbour:
    """A comparison, and how near it is: its target's distance where both are known."""

    comparison: Comparison
    distance: float | None
    is_near: bool
    why: str


@dataclass(frozen=True)
class Verdict:
    """What near evidence says: tuning less freezing over `num_settings` settings.

    `num_for` and `num_against` tuning are those whose own interval leaves 0 on one side,
    `num_negligible` those whose interval holds nothing but negligible differences.  ``either``
    needs such settings; intervals that merely contain 0 leave it ``undecided``.
    """

    word: Word
    num_settings: int
    num_for: int
    num_against: int
    num_negligible: int
    difference: Spread
    interval: Interval | None


@dataclass(frozen=True)
class Advice:
    """All that is known for a question; `boundary` is None as long as `no_boundary` says why."""

    question: Question
    distances: tuple[Distances, ...]  # that have the target; the favourite measure first
    chu: str | None
    neighbours: tuple[Neighbour, ...]
    verdict: Verdict
    boundary: Boundary | None
    no_boundary: str


def advise(
    question: Question, known: Sequence[Comparison], measured: Sequence[Distances]
) -> Advice:
    """Advice from all comparisons and distances of a ledger."""
    asked = [one for one in known if question.asks_about(one.network)]
    about = sorted(
        (one for one in measured if question.asks_about(one.network)),
        key=lambda one: (question.target.key not in one.by_target, _preference(one.measure),
                         -len(one.by_target)),
    )  # fmt: skip
    scale = about[0] if about else None
    deepest = [one for one in asked if one.num_copied == _most_copied(one, asked)]
    neighbours = tuple(_neighbour(one, question, scale) for one in deepest)
    near = [one.comparison for one in neighbours if one.is_near]
    boundary, missing = _boundary(deepest, scale)
    return Advice(
        question=question,
        distances=tuple(one for one in about if question.target.key in one.by_target),
        chu=chu_cell(question, measured),
        neighbours=tuple(sorted(neighbours, key=lambda one: not one.is_near)),
        verdict=verdict(near),
        boundary=boundary,
        no_boundary=missing,
    )


def _preference(measure: str) -> int:
    return FAVOURITES.index(measure) if measure in FAVOURITES else len(FAVOURITES)


def _most_copied(one: Comparison, among: Sequence[Comparison]) -> int:
    """Of networks like this one's, the largest number of layers that were copied: all but the
    classifier, where that was tried."""
    return max(other.num_copied for other in among if other.network.is_like(one.network))


def chu_cell(question: Question, measured: Sequence[Distances]) -> str | None:
    """``freeze``, ``try both`` or ``tune`` of the paper's table; None where it does not apply: its
    distances are cosines of AlexNet's fc7 under ImageNet weights."""
    if question.model not in (None, ALEXNET_FC7[0]):
        return None
    for one in measured:
        if (one.network.model, one.network.weights, one.layer) == ALEXNET_FC7:
            distance = one.by_target.get(question.target.key)
            if one.measure == "cosine" and distance is not None:
                row = next((row for limit, row in _CHU if distance <= limit), _CHU[-1][1])
                return row[sum(question.num_per_class > size for size in _CHU_SIZES)]
    return None


def _neighbour(one: Comparison, question: Question, scale: Distances | None) -> Neighbour:
    ratio = max(one.num_per_class, question.num_per_class) / max(
        min(one.num_per_class, question.num_per_class), 1e-9
    )
    is_same = one.target.key == question.target.key
    there = _distance(one, scale)
    if ratio > SIMILAR_SIZE:
        return Neighbour(one, there, False, "other number of images per class")
    if is_same:
        return Neighbour(one, there, True, "the same target")
    here = None if scale is None else scale.by_target.get(question.target.key)
    if scale is None or there is None or here is None:
        return Neighbour(one, there, False, "distance not known")
    values = scale.by_target.values()
    if abs(there - here) <= SIMILAR_DISTANCE * (max(values) - min(values)):
        return Neighbour(one, there, True, "similar distance")
    return Neighbour(one, there, False, "other distance")


def _distance(one: Comparison, scale: Distances | None) -> float | None:
    if scale is None or not scale.network.is_like(one.network):
        return None
    return scale.by_target.get(one.target.key)


def verdict(near: Sequence[Comparison]) -> Verdict:
    """What comparisons say together; each setting counts once, whatever its number of runs."""
    means = [one.difference.mean for one in near if one.difference.mean is not None]
    limits = [one.interval for one in near if one.interval is not None]
    num_for = sum(one.low > 0 for one in limits)
    num_against = sum(one.high < 0 for one in limits)
    num_negligible = sum(-NEGLIGIBLE <= one.low <= one.high <= NEGLIGIBLE for one in limits)
    word: Word = "undecided" if limits else "unknown"
    if num_for and num_against:
        word = "contradictory"
    elif num_for or num_against:
        word = "tune" if num_for else "freeze"
    elif num_negligible:
        word = "either"
    whole = spread(means)
    return Verdict(word, len(means), num_for, num_against, num_negligible, whole, interval(whole))


def _boundary(known: Sequence[Comparison], scale: Distances | None) -> tuple[Boundary | None, str]:
    """The boundary of the network that distances are known for, or why there is none."""
    if scale is None:
        return None, "no distance is recorded"
    points = boundary_points(known, scale)
    missing = why_no_boundary(points)
    return (None, missing) if missing else (fit_boundary(points), "")


def boundary_points(known: Sequence[Comparison], scale: Distances) -> list[Point]:
    """One point per target and size: the mean of its comparisons' differences."""
    found: dict[tuple[float, float], list[float]] = {}
    for one in known:
        distance = _distance(one, scale)
        if distance is not None and one.difference.mean is not None:
            found.setdefault((distance, one.num_per_class), []).append(one.difference.mean)
    return [
        Point(distance, size, sum(values) / len(values))
        for (distance, size), values in found.items()
    ]
