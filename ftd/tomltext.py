"""TOML text becomes a dictionary, or one error that says where and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftd.errors import ConfigError
from ftd.regular import read_bytes

MAX_BYTES = 1 << 20


def read(path: Path) -> dict[str, Any]:
    """The table in a file.  Raises ConfigError when it cannot be read or is no TOML."""
    try:
        text = read_bytes(path, MAX_BYTES).decode()
    except OSError as error:
        raise ConfigError(
            f"cannot read it ({error.strerror})",
            where=str(path),
            fix="Check the path and its permissions",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("cannot read it: not UTF-8 text", where=str(path)) from error
    return parse(text, str(path))


def parse(text: str, source: str) -> dict[str, Any]:
    """The table in a text; `source` names it in errors.  Raises ConfigError, and nothing else."""
    import tomllib  # 5 ms that most commands need not spend

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"not valid TOML: {error}", where=source, fix="Texts need quotes, sections [brackets]"
        ) from error
    except RecursionError as error:
        raise ConfigError("nested too deeply", where=source, fix="Make it flatter") from error
