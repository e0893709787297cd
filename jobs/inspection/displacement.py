"""How far a layer's weights moved: relative change, cosine drift, and the shift of its BatchNorm.

Everything is computed in float64 from the tensors before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Tensor = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Displacement:
    """Between the weights of one layer before and after, both flattened to one vector.

    ``relative`` is ||after - before|| / ||before|| (infinite where all weights were 0 and moved),
    ``drift`` the cosine drift 1 - <before, after> / (||before|| ||after||), in 0..2;
    ``unit_drifts`` (float64, U) are those of the single filters or units.
    """

    relative: float
    drift: float
    unit_drifts: Floats


def displacement(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Displacement:
    """How far the parameters `before` (by name) of a layer are from those `after`.

    A unit is a row of a tensor with two axes or more, whose first axis counts the outputs: a
    filter (C_in, k, k), or the weights (D,) of one unit.  Tensors of one axis (biases, scales)
    count in the whole layer alone.
    """
    old, new = _flat(before), _flat(after)
    drifts = [
        _drifts(_rows(before[name]), _rows(after[name])) for name in before if before[name].ndim > 1
    ]
    return Displacement(
        relative=_relative(old, new),
        drift=float(_drifts(old[None], new[None])[0]),
        unit_drifts=np.concatenate([np.empty(0), *drifts]),
    )


@dataclass(frozen=True)
class Normalisation:
    """A BatchNorm's per-channel tensors (C,): stored statistics and affine parameters."""

    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor
    eps: float


@dataclass(frozen=True)
class NormalisationShift:
    """How far BatchNorm moved, each a root mean square over channels in stored deviations.

    ``mean`` and ``deviation`` are the moves of the stored mean and standard deviation in units of
    the deviation stored before; ``scale`` and ``shift`` those of the affine parameters in units of
    what the output's deviation was before under the stored statistics, the root mean square of the
    scale.
    """

    mean: float
    deviation: float
    scale: float
    shift: float


def normalisation_shift(
    before: Sequence[Normalisation], after: Sequence[Normalisation]
) -> NormalisationShift | None:
    """Of all BatchNorms of a layer together; None when it has none."""
    if not before:
        return None
    old = {name: _joined(before, name) for name in ("mean", "variance", "scale", "shift")}
    new = {name: _joined(after, name) for name in old}
    eps = np.concatenate([np.full(len(one.mean), one.eps) for one in before])
    stored, now = np.sqrt(old["variance"] + eps), np.sqrt(new["variance"] + eps)
    spread = _rms(old["scale"])
    return NormalisationShift(
        mean=_rms((new["mean"] - old["mean"]) / stored),
        deviation=_rms((now - stored) / stored),
        scale=_ratio(_rms(new["scale"] - old["scale"]), spread),
        shift=_ratio(_rms(new["shift"] - old["shift"]), spread),
    )


def _flat(tensors: Mapping[str, Tensor]) -> Floats:
    parts = [tensor.astype(np.float64).ravel() for tensor in tensors.values()]
    return np.concatenate([np.empty(0), *parts])


def _rows(tensor: Tensor) -> Floats:
    return tensor.astype(np.float64).reshape(len(tensor), -1)


def _relative(old: Floats, new: Floats) -> float:
    return _ratio(float(np.linalg.norm(new - old)), float(np.linalg.norm(old)))


def _ratio(moved: float, size: float) -> float:
    if size == 0:
        return 0.0 if moved == 0 else np.inf
    return moved / size


def _drifts(old: Floats, new: Floats) -> Floats:
    """1 - cosine of each row; 0 where a row was 0 and stayed so, 1 where only one of them is 0.

    From the difference of the unit vectors, ||u - v||^2 / 2: small drifts are no rounding error.
    """
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (old, new)]
    one, other = (
        np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        for rows, length in zip((old, new), lengths, strict=True)
    )
    drifts = ((one - other) ** 2).sum(axis=1) / 2
    return np.where((lengths[0] == 0)[:, 0] ^ (lengths[1] == 0)[:, 0], 1.0, drifts)


def _joined(parts: Sequence[Normalisation], name: str) -> Floats:
    return np.concatenate([getattr(part, name) for part in parts]).astype(np.float64)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))
