"""Kinds of values that several parameters take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Fraction = Annotated[float, Field(ge=0, lt=1)]
NumViews = Literal[1, 16]
SIXTEEN_VIEWS = (
    "16 for the image, its corners and centre (4/9 of the area each) and two rotations, each also "
    "mirrored"
)
