"""Parameters of retrieval: who asks for what, and how images are described and compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftd.job import Params
from jobs.params.augment import ColourParams, Share
from jobs.params.features import FeaturesParams
from jobs.params.model import ModelParams
from jobs.params.solvers import NormaliseParams
from jobs.params.target import TargetParams

Count = Annotated[int, Field(ge=1)]


class QueriesParams(Params):
    """Test images of a class ask for the other test images of that class."""

    per_class: int = Field(
        default=1,
        ge=1,
        description="Query images per class, drawn by the seed stream split; the other test images "
        "are the references.",
    )


class InstancesParams(Params):
    """Random views of a test image ask for the other views of it, among those of all others."""

    views: int = Field(default=4, ge=2, le=32, description="Random views of each test image.")
    scale: tuple[Share, Share] = Field(
        default=(0.4, 1.0),
        description="Least and greatest share of the image's area that a view shows.",
    )
    flip: bool = Field(default=True, description="Mirror every second view or so.")
    colour: ColourParams | None = Field(
        default=None, description="{brightness, contrast, saturation, hue}: how far views vary."
    )

    @model_validator(mode="after")
    def _ordered(self) -> InstancesParams:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale is written as [least, greatest]")
        return self


class PatchesParams(Params):
    """Sub-patches that images are compared by, as in Razavian et al. 2014: 30 and 14."""

    reference_levels: int = Field(
        default=4,
        ge=1,
        le=8,
        description="Levels of a reference image: level i has i^2 overlapping square patches.",
    )
    query_levels: int = Field(default=3, ge=1, le=8, description="Levels of a query image.")


class RetrievalNormaliseParams(NormaliseParams):
    """L2 - PCA - whitening - L2 - signed power; a PCA is fitted on what `fit` names."""

    pca: Count | None = Field(
        default=None,
        description="Keep so many principal components (at most as many as there are); default: "
        "all dimensions as they are.",
    )
    fit: Literal["reference", "train"] | None = Field(
        default=None,
        description="Whose images the PCA is fitted on: the references, never the queries, or the "
        "target's training images. Default: train for instances, else reference.",
    )


class RetrievalParams(Params):
    """Which network's features describe which images, who asks, how descriptors are compared."""

    model: ModelParams
    features: FeaturesParams = FeaturesParams()
    target: TargetParams
    queries: QueriesParams | None = Field(
        default=None,
        description="{per_class}: test images ask for others of their class. Without queries and "
        "instances the manifest's column role says who is a query, a reference, or junk (which its "
        "label's queries pass over).",
    )
    instances: InstancesParams | None = Field(
        default=None,
        description="{views}: each test image is known by random views, and each asks for the "
        "others.",
    )
    normalise: RetrievalNormaliseParams = RetrievalNormaliseParams()
    patches: PatchesParams | None = Field(
        default=None,
        description="{reference_levels, query_levels}: compare sub-patches of several sizes: the "
        "mean over a query's of the distance to the nearest of a reference's; {} for 4 and 3. "
        "Default: whole images.",
    )
    recall_at: list[Count] = Field(
        default=[1, 4, 10], min_length=1, description="Numbers of images that recall looks at."
    )

    @model_validator(mode="after")
    def _consistent(self) -> RetrievalParams:
        if self.queries is not None and self.instances is not None:
            raise ValueError("give either queries or instances")
        if self.roles and self.target.dataset != "csv":
            raise ValueError("give queries or instances, or a manifest with a column role")
        if self.target.multi_label and self.instances is None:
            raise ValueError("queries ask for one label, which multi_label has not")
        if self.instances is not None and self.patches is not None:
            raise ValueError("patches go with whole images, not with instances")
        fit = self.normalise.fit
        if self.normalise.pca is None and fit is not None:
            raise ValueError("normalise.fit goes with normalise.pca")
        if self.instances is not None and fit == "reference":
            raise ValueError("every view is a query of its own, so fit: train")
        if self.roles and fit == "train":
            raise ValueError("roles have no training images, so fit: reference")
        return self

    @property
    def roles(self) -> bool:
        """Whether the manifest says who asks."""
        return self.queries is None and self.instances is None
