"""Parameters of the job ``probe``."""

from __future__ import annotations

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.params.features import FeaturesParams
from jobs.params.fields import SIXTEEN_VIEWS, NumViews
from jobs.params.model import ModelParams
from jobs.params.solvers import NormaliseParams, SolverParams
from jobs.params.target import TargetParams


class BackboneParams(Params):
    """One more network whose features count."""

    model: ModelParams
    features: FeaturesParams = FeaturesParams()


class ProbeParams(Params):
    """Which network's features of which images are told apart, and how."""

    model: ModelParams
    features: FeaturesParams = FeaturesParams()
    concat: list[BackboneParams] = Field(
        default=[],
        description="Further networks, or layers, whose features stand beside those of features; "
        "each is scaled to length 1 by itself where normalise.l2 says so.",
    )
    target: TargetParams
    train_views: NumViews = Field(
        default=1,
        description=f"How each training image is looked at: 1 as it is, or {SIXTEEN_VIEWS}. "
        "Each view is a sample of its own.",
    )
    test_views: NumViews = Field(
        default=1,
        description="The same for validation and test images: responses are averaged over the "
        "views, which orders classes as their sum does.",
    )
    normalise: NormaliseParams = NormaliseParams()
    solver: SolverParams = SolverParams()
    compute_also: list[FeaturesParams] = Field(
        default=[],
        description="Features of the first network that are computed along where this run has to "
        "compute its own, for runs that will ask for them. Changes no result. All layers at grids "
        "1 and 2 are computed anyway.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ProbeParams:
        if self.normalise.whiten and self.normalise.pca is None:
            raise ValueError("normalise.whiten needs normalise.pca, the components to scale")
        if self.target.multi_label and self.solver.kind == "svm" and self.solver.scheme == "ovo":
            raise ValueError("solver.scheme: ovo needs one label per image: use ova")
        return self
