"""Logistic regression: multinomial, or for several labels per image one per class.

Minimises 1/2 |w|^2 + C sum(-log probability of the label), offsets free (scikit-learn's lbfgs).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from jobs.params.solvers import SolverParams
from jobs.solvers.linear import NEVER, Floats, Labels, Linear, Samples


def fit(
    samples: Samples, labels: Labels, num_classes: int, solver: SolverParams
) -> Iterator[Linear]:
    """A classifier for each of the solver's candidates, in their order: scores are logits.

    `samples` are (N, D), `labels` class numbers (N,) or zeros and ones (N, K).
    """
    exact = samples.astype(np.float64)
    for C in solver.candidates:
        if labels.ndim == 1:
            yield _multinomial(exact, labels, num_classes, C, solver)
            continue
        planes = [_multinomial(exact, column, 2, C, solver) for column in labels.T]
        yield Linear(
            np.stack([plane.weights[1] - plane.weights[0] for plane in planes]),
            np.array([plane.offsets[1] - plane.offsets[0] for plane in planes]),
            all(plane.converged for plane in planes),
        )


def _multinomial(
    samples: Floats, labels: Labels, num_classes: int, C: float, solver: SolverParams
) -> Linear:
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    weights, offsets = np.zeros((num_classes, samples.shape[1])), np.full(num_classes, NEVER)
    present = np.unique(labels)
    if len(present) == 1:
        offsets[present] = 0
        return Linear(weights, offsets)
    limit = solver.max_iterations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, which is recorded
        model = LogisticRegression(C=C, tol=solver.tolerance, max_iter=limit)
        model.fit(samples, labels)
    if len(present) == 2:  # one logit, of the second class
        weights[present] = np.array([[-0.5], [0.5]]) * model.coef_
        offsets[present] = np.array([-0.5, 0.5]) * model.intercept_
    else:
        weights[present], offsets[present] = model.coef_, model.intercept_
    return Linear(weights, offsets, bool((model.n_iter_ < limit).all()))
