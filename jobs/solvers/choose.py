"""Fitting a solver's candidates on training samples, and choosing one on validation samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ftd.errors import DataError
from ftd.metric_names import best
from jobs.measure.scoring import Scoring
from jobs.params.solvers import SolverParams
from jobs.solvers import knn, logistic, ridge, svm
from jobs.solvers.linear import Fitted, Floats, Labels, Samples


@dataclass(frozen=True)
class Chosen:
    """The classifier to use: of which candidate ``value`` it is, and whether an edge of the grid.

    ``on_validation`` has the selection metric of every candidate, in their order (none: there was
    nothing to choose).
    """

    fitted: Fitted
    value: float
    on_edge: bool
    on_validation: tuple[float, ...]


def candidates(
    samples: Samples, labels: Labels, num_classes: int, solver: SolverParams, seed: int
) -> Iterator[Fitted]:
    """A classifier for each of the solver's candidates, the simplest first.

    `samples` are (N, D), `labels` class numbers (N,) or zeros and ones (N, K).
    """
    match solver.kind:
        case "svm":
            return svm.fit(samples, labels, num_classes, solver, seed)
        case "logistic":
            return logistic.fit(samples, labels, num_classes, solver)
        case "ridge":
            return iter(ridge.fit(samples, labels, num_classes, solver.candidates))
        case "knn":
            return iter(knn.fit(samples, labels, num_classes, solver.candidates))


def check_choice(scoring: Scoring, solver: SolverParams, val_labels: Labels) -> None:
    """Raise DataError when there is something to choose and nothing to choose it by."""
    if len(solver.candidates) == 1:
        return
    if not len(val_labels):
        raise DataError(
            f"solver.{solver.tuned} is a grid, and there are no validation images to choose by",
            fix=f"Give one value, as solver.{solver.tuned}: {solver.candidates[0]:g}, or set "
            "target.val_fraction",
        )
    known = [f"val/{name}" for name in scoring.chance(val_labels)]
    if solver.select not in known:
        raise DataError(
            f"solver.select: this target has no {solver.select}",
            fix=f"Use one of {', '.join(sorted(known))}",
        )


def choose(
    fit: Callable[[SolverParams], Iterator[Fitted]],
    solver: SolverParams,
    validate: Callable[[Fitted], Floats],
    scoring: Scoring,
    val_labels: Labels,
    before: Sequence[float],
    told: Callable[[Sequence[float]], None],
) -> Chosen:
    """The best of the solver's candidates on validation samples; of equally good ones the first.

    `fit` gives a solver's classifiers, `validate` one's scores (N, K) of the validation samples.
    `before` are the selection metrics of the first candidates, if known; `told` is given those so
    far after each further one, and may raise to leave.
    """
    values = solver.candidates
    if len(values) == 1:
        return Chosen(next(fit(solver)), values[0], False, ())
    assert solver.select is not None, "resolved"
    name = solver.select.partition("/")[2]
    found, kept = list(before), dict[int, Fitted]()
    if len(found) < len(values):
        for one in fit(solver.only(values[len(found) :])):
            found.append(scoring.metrics(validate(one).astype("float32"), val_labels)[name])
            if best(found, name) == len(found) - 1:
                kept = {len(found) - 1: one}
            told(found)
    number = best(found, name)
    value = values[number]
    chosen = kept[number] if number in kept else next(fit(solver.only((value,))))
    return Chosen(chosen, value, number in (0, len(values) - 1), tuple(found))
