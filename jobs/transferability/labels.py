"""How well the classes that a network knows foretell a target's labels: LEEP and NCE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def leep(probabilities: Floats, labels: Labels) -> float:
    """The log expected empirical prediction; nats, at most 0, the higher the easier the transfer.

    `probabilities` (N, Z) of the source's classes for the target's images, `labels` (N).  Nguyen
    et al., LEEP: a new measure to evaluate transferability of learned representations, ICML 2020,
    equations 1 and 2: mean over images of log sum_z P(y|z) p(z|x).
    """
    joint = _joint(probabilities, labels)
    # A source class that no image has any probability of says nothing.
    marginal = joint.sum(axis=0)
    given = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    expected = (given[labels] * probabilities).sum(axis=1)
    # At least the square of the smallest probability, which may be less than the smallest number.
    return float(np.log(np.maximum(expected, np.finfo(np.float64).tiny)).mean())


def nce(source_labels: Labels, labels: Labels) -> float:
    """The negative conditional entropy -H(Y|Z) of target labels, given source labels, both (N).

    Nats, at most 0, the higher the easier the transfer.  Tran, Nguyen, Hassner, Transferability
    and hardness of supervised classification tasks, ICCV 2019, equation 6.  For a network, its
    most probable class is the source label.
    """
    sure = np.zeros((len(labels), int(source_labels.max()) + 1))
    sure[np.arange(len(labels)), source_labels] = 1
    joint = _joint(sure, labels)
    marginal = joint.sum(axis=0, keepdims=True)
    there = joint > 0
    shares = np.divide(joint, marginal, out=np.ones_like(joint), where=there)
    return float((joint * np.log(shares)).sum())


def _joint(probabilities: Floats, labels: Labels) -> Floats:
    """The empirical P(y, z), (Y, Z)."""
    joint = np.zeros((int(labels.max()) + 1, probabilities.shape[1]))
    np.add.at(joint, labels, probabilities)
    return joint / len(labels)
