"""Parameters of what is fitted on features that do not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ftd.job import Params

Positive = Annotated[float, Field(gt=0)]
Penalty = Annotated[float, Field(ge=1e-12, le=1e12)]  # beyond, the arithmetic means nothing
Count = Annotated[int, Field(ge=1)]


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


class NormaliseParams(Params):
    """What happens to features before a solver sees them, in this order.

    L2 - PCA - whitening - L2 - signed power (Razavian et al. 2014, "CNN features off-the-shelf").
    """

    l2: bool = Field(
        default=True,
        description="Scale each image's features to length 1, before PCA and again after it.",
    )
    pca: Count | None = Field(
        default=None,
        description="Keep so many principal components (at most as many as the training images "
        "give); default: all dimensions as they are. Fitted on the training images alone.",
    )
    whiten: bool = Field(
        default=False, description="Scale the principal components to equal variance."
    )
    power: Annotated[float, Field(gt=0, le=10)] = Field(
        default=1.0, description="Raise each number to this power and keep its sign."
    )


class SolverParams(Params):
    """A classifier on features; where several values are given, validation images choose one."""

    kind: Literal["svm", "ridge", "logistic", "knn"] = Field(
        default="svm",
        description="svm: linear, maximal margin; ridge: least squares; logistic: regression; knn: "
        "nearest neighbours by L2 distance.",
    )
    scheme: Literal["ova", "ovo"] = Field(
        default="ova",
        description="For svm with several classes: each against all others, or each pair with "
        "votes. The same for two classes.",
    )
    loss: Literal["hinge", "squared_hinge"] = Field(
        default="hinge", description="For svm: what a violated margin costs."
    )
    C: Annotated[list[Positive], BeforeValidator(_listed), Field(min_length=1)] = Field(
        default=[2.0**exponent for exponent in range(-7, 8, 2)],
        description="For svm and logistic: how much errors on training images count, in "
        "half the squared length of the weights + C sum(loss); a number, or a grid to choose from.",
    )
    penalty: Annotated[list[Penalty], BeforeValidator(_listed), Field(min_length=1)] = Field(
        default=[10.0**exponent for exponent in range(-4, 4)],
        description="For ridge: what the weights' squared length counts beside the sum of squares; "
        "a number, or a grid to choose from.",
    )
    k: Annotated[list[Count], BeforeValidator(_listed), Field(min_length=1)] = Field(
        default=[1, 3, 5, 9, 15, 25],
        description="For knn: neighbours that vote; a number or a grid.",
    )
    select: str | None = Field(
        default=None,
        pattern=r"^val/[a-z0-9_]+$",
        description="The validation metric that chooses from a grid (val/top1); default: what "
        "matters for this kind of target. Equally good: the simpler one.",
    )
    tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1e-3, description="For svm and logistic: how near to the optimum to stop."
    )
    max_iterations: Count = Field(
        default=100_000,
        description="For svm and logistic: where to stop at the latest; that is recorded.",
    )

    @property
    def candidates(self) -> tuple[float, ...]:
        """The values to choose from, the simplest classifier first."""
        match self.kind:
            case "ridge":
                return tuple(sorted(set(self.penalty), reverse=True))
            case "knn":
                return tuple(sorted(map(float, set(self.k)), reverse=True))
            case _:
                return tuple(sorted(set(self.C)))

    def only(self, values: Sequence[float]) -> SolverParams:
        """The same solver with these candidates."""
        return self.model_copy(update={self.tuned: list(values)})

    @property
    def tuned(self) -> str:
        """The name of the parameter that the candidates are values of."""
        return {"ridge": "penalty", "knn": "k"}.get(self.kind, "C")

    @property
    def unused(self) -> set[str]:
        """The fields that cannot matter."""
        used = {"kind", self.tuned}
        used |= {"scheme", "loss"} if self.kind == "svm" else set()
        used |= {"tolerance", "max_iterations"} if self.kind in ("svm", "logistic") else set()
        used |= {"select"} if len(self.candidates) > 1 else set()
        return set(type(self).model_fields) - used
