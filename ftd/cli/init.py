"""``ftd init``: make a home, and say what comes next."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ftd.cli.home import home_of
from ftd.errors import ConfigError
from ftd.layout import Home
from ftd.printable import printable

_HEAD = """\
# Settings of this ftd home.  Every line shows a default: take away the '#' and change it.
# What changes a result is never set here, but in the spec.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``ftd init`` takes no options of its own."""
    parser.epilog = "Doing it again changes nothing.\n\nexample:\n  ftd init --home /srv/ftd"


def run(args: argparse.Namespace) -> int:
    """Make home, ledger and settings where they do not exist yet."""
    from ftd.ledger.db import open_ledger

    home = home_of(args)
    existed = home.ledger.exists()
    open_ledger(home, create=True).close()
    lines = [f"{home.root} {'is a home already' if existed else 'is a home now'}"]
    if _write_settings(home):
        lines.append(f"settings, all defaults: {home.root / 'ftd.toml'}")
    lines += ["next: ftd daemon, and in another shell: ftd enqueue SPEC"]
    print("\n".join(map(printable, lines)))
    return 0


def _write_settings(home: Home) -> bool:
    path = home.root / "ftd.toml"
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(default_settings())
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(
            f"cannot write {path} ({error.strerror})", fix="Check its folder"
        ) from error
    return True


def default_settings() -> str:
    """An annotated ``ftd.toml`` with every key and its default, all commented out."""
    from ftd.config import Config

    defaults = Config()
    plain, sections = [], []
    for name, field in Config.model_fields.items():
        value = getattr(defaults, name)
        if hasattr(type(value), "model_fields"):
            about = [_entry(key, getattr(value, key), each.description or "")
                     for key, each in type(value).model_fields.items()]  # fmt: skip
            sections.append(f"[{name}]\n" + "\n".join(about))
        else:
            plain.append(_entry(name, value, field.description or ""))
    return "\n".join([_HEAD, *plain, *sections])


def _entry(name: str, value: Any, description: str) -> str:
    shown = json.dumps(value) if value is not None else "...   (not set)"
    return f"# {description}\n# {name} = {shown}\n"
