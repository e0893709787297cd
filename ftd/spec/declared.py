"""What people declare below ``factors`` and ``tune``, as they write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from ftd.document import shown

Levels = Annotated[list[Any], Field(min_length=1)]
Assignments = Annotated[dict[str, Any], Field(min_length=1)]

_LIST, _MAPPING = "as a list", "as a mapping"  # words that no key has


def _form(value: object) -> str:
    return _MAPPING if isinstance(value, dict) else _LIST


LevelsBy = Annotated[dict[str, Levels], Field(min_length=1)]
# told apart by their form alone, so that an error is about the form that was written
LevelsOrBy = Annotated[
    Annotated[Levels, Tag(_LIST)] | Annotated[LevelsBy, Tag(_MAPPING)], Discriminator(_form)
]


class ConditionalFactor(BaseModel):
    """A factor with more to say about it than its levels."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    levels: LevelsOrBy = Field(
        description="The levels; with `by`, a mapping from each level of that factor to those here."
    )
    when: dict[str, Any] = Field(
        default_factory=dict,
        description="It exists only in cells in which these factors have one of these levels.",
    )
    by: str | None = Field(None, description="The factor above it that its levels depend on.")
    role: Literal["factor", "block", "random"] = Field(
        "factor",
        description="factor: compared. block: compared within, not across. random: its levels are "
        "draws, and the unit of an interval.",
    )


FactorDeclaration = Annotated[
    Annotated[Levels, Tag(_LIST)] | Annotated[ConditionalFactor, Tag(_MAPPING)],
    Discriminator(_form),
]


class Tune(BaseModel):
    """Parameters that are chosen inside each cell, never compared."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    over: dict[str, Levels] = Field(
        min_length=1, description="Tuned parameters: path or name -> levels; every combination."
    )
    select: str = Field(description="The validation metric that chooses, for instance val/top1.")
    per: Literal["replicate", "cell"] = Field(
        "replicate",
        description="replicate: each replicate chooses for itself. cell: the best mean over "
        "replicates.",
    )

    @field_validator("select")
    @classmethod
    def _is_of_validation(cls, value: str) -> str:
        split, _, name = value.partition("/")
        if split == "val" and name:
            return value
        if split.startswith("test"):
            raise ValueError(
                f"'{shown(value)}' is measured on the test images, and what they chose they cannot "
                "judge any more: take a metric of the validation images, val/..."
            )
        raise ValueError(f"'{shown(value)}' is no metric of the validation images: write val/NAME")
