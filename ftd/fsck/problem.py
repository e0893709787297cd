"""What a check found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    `mend` puts it right without dropping anything that a person may want; where it is None, `fix`
    says what a person can do.
    """

    where: str  # r12, e3, or a path below the home
    text: str
    fix: str
    mend: Callable[[], object] | None = None
