"""Linear support vector machines, all values of C on one set of samples.

Minimises 1/2 |w|^2 + C sum(max(0, 1 - y (w x + b))), or of its squares (Cortes, Vapnik 1995; the
objective of Razavian et al. 2014).  The hinge on up to `MOST_DUAL` samples: libsvm on a matrix of
inner products that all classes and values of C share, b free.  Else liblinear, where b is penalised
like a weight.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from jobs.measure.truth import truth
from jobs.params.solvers import SolverParams
from jobs.solvers.linear import NEVER, Fitted, Floats, Labels, Linear, Pairwise, Samples, gram

MOST_DUAL = 5000  # 200 MB of inner products
_CACHE_MB = 200

Mask = npt.NDArray[np.bool_]
Plane = tuple[Floats, float, bool]  # weights (D,), offset, converged


def fit(
    samples: Samples, labels: Labels, num_classes: int, solver: SolverParams, seed: int
) -> Iterator[Fitted]:
    """A classifier for each of the solver's candidates, in their order.

    `samples` are (N, D), `labels` class numbers (N,) or zeros and ones (N, K).
    """
    machine = _Machine(samples, solver, seed)
    of_class = truth(labels, num_classes)
    for C in solver.candidates:
        if solver.scheme == "ovo" and num_classes > 2:
            yield _pairwise(machine, of_class, C)
        else:
            yield _one_against_all(machine, of_class, C, labels.ndim == 1)


def _one_against_all(machine: _Machine, of_class: Mask, C: float, exclusive: bool) -> Linear:
    num_classes = of_class.shape[1]
    if exclusive and num_classes == 2:
        weights, offset, converged = machine.plane(of_class[:, 1], C)
        return Linear(np.stack([-weights, weights]), np.array([-offset, offset]), converged)
    planes = [machine.plane(of_class[:, k], C) for k in range(num_classes)]
    return Linear(
        np.stack([plane[0] for plane in planes]),
        np.array([plane[1] for plane in planes]),
        all(plane[2] for plane in planes),
    )


def _pairwise(machine: _Machine, of_class: Mask, C: float) -> Pairwise:
    num_classes = of_class.shape[1]
    planes = []
    for first, second in itertools.combinations(range(num_classes), 2):
        members = np.flatnonzero(of_class[:, first] | of_class[:, second])
        planes.append(machine.plane(of_class[members, first], C, members))
    return Pairwise(
        np.stack([plane[0] for plane in planes]),
        np.array([plane[1] for plane in planes]),
        num_classes,
        all(plane[2] for plane in planes),
    )


class _Machine:
    """Separates some of the samples in two."""

    def __init__(self, samples: Samples, solver: SolverParams, seed: int) -> None:
        self._samples = samples
        self._solver = solver
        self._seed = seed % 2**32
        self._dual = solver.loss == "hinge" and len(samples) <= MOST_DUAL
        self._products = gram(samples, samples) if self._dual else None

    def plane(
        self, positive: Mask, C: float, members: npt.NDArray[np.int64] | None = None
    ) -> Plane:
        """The hyperplane with the samples `members` (None: all) that are `positive` above it."""
        if positive.all() or not positive.any():
            return np.zeros(self._samples.shape[1]), NEVER if not positive.any() else -NEVER, True
        fitted = self._by_libsvm if self._dual else self._by_liblinear
        chosen = np.arange(len(self._samples)) if members is None else members
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence, which is recorded
            return fitted(positive, C, chosen)

    def _by_libsvm(self, positive: Mask, C: float, members: npt.NDArray[np.int64]) -> Plane:
        from sklearn.svm import SVC  # takes a second to import

        assert self._products is not None
        products = self._products
        if len(members) < len(products):
            products = products[np.ix_(members, members)]
        machine = SVC(
            C=C,
            kernel="precomputed",
            tol=self._solver.tolerance,
            max_iter=self._solver.max_iterations,
            cache_size=_CACHE_MB,
        ).fit(products, positive)
        support = members[machine.support_]
        weights = machine.dual_coef_[0] @ self._samples[support].astype(np.float64)
        return weights, float(machine.intercept_[0]), not machine.fit_status_

    def _by_liblinear(self, positive: Mask, C: float, members: npt.NDArray[np.int64]) -> Plane:
        from sklearn.svm import LinearSVC

        samples = self._samples[members].astype(np.float64)
        limit = self._solver.max_iterations
        primal = self._solver.loss == "squared_hinge" and len(samples) > samples.shape[1]
        machine = LinearSVC(
            C=C,
            loss=self._solver.loss,
            dual=not primal,
            tol=self._solver.tolerance,
            max_iter=limit,
            random_state=self._seed,
        ).fit(samples, positive)
        return machine.coef_[0], float(machine.intercept_[0]), bool(machine.n_iter_ < limit)
