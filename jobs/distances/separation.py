"""How well a linear classifier tells two sets of features apart, and the proxy A-distance.

Ben-David et al., Analysis of representations for domain adaptation, NIPS 2006: the better a
classifier separates source from target, the farther apart they are.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from jobs.distances.halves import Half

Floats = npt.NDArray[np.float64]
C = 1.0
MAX_ITERATIONS = 20_000
TOLERANCE = 1e-5


def svm_accuracy(first: Floats, second: Floats, half: Half, seed: int) -> tuple[float, bool]:
    """Accuracy (0 to 1; 0.5: cannot be told apart) of a linear SVM, and whether it converged.

    Trained on `half` of the rows of (m, D) and (n, D), tested on the others; each set's accuracy
    counts the same.  Squared hinge loss, C = 1, after features were centred and scaled to a mean
    squared norm of 1 on the training half: so orthogonal transforms, scaling and shifts of both
    change nothing.  Solved by liblinear's dual coordinate descent, whose order `seed` draws.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    train = np.concatenate([first[half.first], second[half.second]])
    labels = np.repeat([0, 1], [len(half.first), len(half.second)])
    centre = train.mean(axis=0)
    scale = np.sqrt(((train - centre) ** 2).sum(axis=1).mean()) or 1.0
    solver = LinearSVC(
        C=C, dual=True, tol=TOLERANCE, max_iter=MAX_ITERATIONS, random_state=seed & 0x7FFFFFFF
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is recorded
        solver.fit((train - centre) / scale, labels)
    shares = [
        float((solver.predict((rows - centre) / scale) == label).mean())
        for label, rows in enumerate((first[half.first_rest], second[half.second_rest]))
    ]
    return sum(shares) / 2, bool(np.max(solver.n_iter_) < MAX_ITERATIONS)


def a_distance(accuracy: float) -> float:
    """2 (1 - 2 e), e the error of telling both apart: 0 (chance) to 2; below chance below 0.

    The proxy A-distance, Ben-David et al. 2006, section 4.
    """
    return 2 * (1 - 2 * (1 - accuracy))
