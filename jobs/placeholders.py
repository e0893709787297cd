"""Placeholders in a command line: ``{seed}``, ``{param.lr}`` and the like, filled in per run.

Only a name in braces is one, so that JSON in an argument stays as it is; ``{{name}}`` is the text
``{name}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ftd.errors import InputError, closest

_PLACEHOLDER = re.compile(r"\{\{[A-Za-z_][\w.]*\}\}|\{[A-Za-z_][\w.]*\}")


def names_in(texts: Iterable[str]) -> set[str]:
    """The names of all placeholders in these texts."""
    found = (match for text in texts for match in _PLACEHOLDER.findall(text))
    return {match[1:-1] for match in found if not match.startswith("{{")}


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with every placeholder replaced by its value."""

    def value(match: re.Match[str]) -> str:
        written = match[0]
        return written[1:-1] if written.startswith("{{") else values[written[1:-1]]

    return _PLACEHOLDER.sub(value, text)


def check(texts: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise InputError for a placeholder whose name is not `known`."""
    allowed = sorted(known)
    for name in sorted(names_in(texts) - set(allowed)):
        listed = ", ".join(f"{{{one}}}" for one in allowed)
        near = f"{closest(name, allowed)} ".lstrip()
        raise InputError(
            f"there is no placeholder {{{name}}}",
            where=where,
            fix=f"{near}Allowed: {listed}; write {{{{{name}}}}} for the text itself",
        )
