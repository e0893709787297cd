"""The negative controls of `controls.toml`: what is taken out, and which tests must notice."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).parent / "controls.toml"


@dataclass(frozen=True)
class Change:
    """A file below the root, and the text in it that is replaced."""

    file: str
    old: str
    new: str

    def applied(self, root: Path) -> str:
        """The changed file's text.  Raises ValueError unless the old text is there once."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{text.count(self.old)} times in {self.file}: {self.old!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Control:
    """A mechanism to take out: `row` is part of what stands first in its row of the table.

    Each of `tests` (below tests/) must fail then.
    """

    row: str
    out: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"without: {self.out}"


def controls() -> list[Control]:
    """All controls, as they are listed."""
    found = []
    for row in tomllib.loads(LIST.read_text())["row"]:
        for one in row["control"]:
            changes = (one, *one.get("also", ()))
            found.append(
                Control(
                    row["when"],
                    one["out"],
                    tuple(Change(c["file"], c["old"], c["new"]) for c in changes),
                    tuple(one["tests"]),
                )
            )
    return found
