"""Where tuning begins to beat freezing: a plane through differences, and the line on it at zero.

After figure 3 of Chu, Madhavan, Beijbom, Hoffman, Darrell: Best practices for fine-tuning visual
classifiers to new domains (ECCV workshops 2016), which draws such a line between source distance
and images per class; the formula is not theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftd.stats.spread import CONFIDENCE, Interval

MIN_POINTS = 6  # as many degrees of freedom are left as the plane takes
MIN_DISTANCES = 3  # from two targets a slope is the difference of two targets
MIN_SIZES = 2

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One target at one size: tuning less freezing, at this distance and images per class."""

    distance: float
    num_per_class: float
    difference: float


@dataclass(frozen=True)
class Boundary:
    """The plane difference = ``constant`` + ``slope_distance`` d + ``slope_size`` log10(n).

    `covariance` (3 x 3) is that of the three numbers; `num_points` - 3 are the degrees of freedom.
    """

    constant: float
    slope_distance: float
    slope_size: float
    covariance: tuple[tuple[float, ...], ...]
    num_points: int
    smallest: float  # images per class that were looked at
    largest: float

    def difference(self, distance: float, num_per_class: float) -> Interval:
        """The interval of the mean difference at a place of the plane, around its estimate."""
        place = np.array([1.0, distance, math.log10(num_per_class)])
        mean = float(place @ self._coefficients)
        half = self._t * math.sqrt(max(0.0, float(place @ np.array(self.covariance) @ place)))
        return Interval(mean - half, mean + half, CONFIDENCE)

    def num_per_class(self, distance: float) -> float | None:
        """Images per class from which tuning is better, at a distance; None where more images do
        not favour it.  Far outside of what was looked at it may be any number, also infinity."""
        if self.slope_size <= 0:
            return None
        at_one = self.constant + self.slope_distance * distance
        return _power_of_ten(-at_one / self.slope_size)

    def num_per_class_interval(self, distance: float) -> Interval | None:
        """Where that number lies; None where the differences do not tell that it is any.

        Fieller's set (Fieller: Some problems in interval estimation, JRSS B 16, 1954): the sizes at
        which the interval of the difference contains 0, where these have two ends.
        """
        if self.slope_size <= 0:
            return None
        at_one = self.constant + self.slope_distance * distance
        one, size = np.array([1.0, distance, 0.0]), np.array([0.0, 0.0, 1.0])
        covariance, t2 = np.array(self.covariance), self._t**2
        square = self.slope_size**2 - t2 * float(size @ covariance @ size)
        linear = at_one * self.slope_size - t2 * float(one @ covariance @ size)
        rest = at_one**2 - t2 * float(one @ covariance @ one)
        if square <= 0:
            return None
        root = math.sqrt(max(0.0, linear**2 - square * rest))
        low, high = ((-linear + sign * root) / square for sign in (-1, 1))
        return Interval(_power_of_ten(low), _power_of_ten(high), CONFIDENCE)

    @property
    def _coefficients(self) -> Floats:
        return np.array([self.constant, self.slope_distance, self.slope_size])

    @property
    def _t(self) -> float:
        from scipy.special import stdtrit  # a third of a second to load

        return float(stdtrit(self.num_points - 3, (1 + CONFIDENCE) / 2))


def why_no_boundary(points: Sequence[Point]) -> str:
    """What is missing to fit a boundary, in a line; empty when nothing is."""
    distances = {point.distance for point in points}
    sizes = {point.num_per_class for point in points}
    missing = [
        f"{have} {what} (at least {least})"
        for have, least, what in (
            (len(points), MIN_POINTS, "targets and sizes measured"),
            (len(distances), MIN_DISTANCES, "different distances"),
            (len(sizes), MIN_SIZES, "different numbers of images per class"),
        )
        if have < least
    ]
    if missing or np.linalg.matrix_rank(_design(points)) == 3:
        return "; ".join(missing)
    return "distance and images per class do not vary independently"


def fit_boundary(points: Sequence[Point]) -> Boundary:
    """Least squares through `points`, each counting once: a target at a size, not a run.

    Raises ValueError where :func:`why_no_boundary` says something.
    """
    missing = why_no_boundary(points)
    if missing:
        raise ValueError(missing)
    design = _design(points)
    observed = np.array([point.difference for point in points])
    found, *_ = np.linalg.lstsq(design, observed)
    residual = observed - design @ found
    variance = float(residual @ residual) / (len(points) - 3)
    covariance = variance * np.linalg.inv(design.T @ design)
    sizes = [point.num_per_class for point in points]
    constant, slope_distance, slope_size = map(float, found)
    return Boundary(
        constant,
        slope_distance,
        slope_size,
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        num_points=len(points),
        smallest=min(sizes),
        largest=max(sizes),
    )


def _design(points: Sequence[Point]) -> Floats:
    return np.array([[1.0, one.distance, math.log10(one.num_per_class)] for one in points])


def _power_of_ten(exponent: float) -> float:
    return 10.0**exponent if exponent < 300 else math.inf
