"""Which home a command works on, and its ledger opened for reading."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ftd.layout import Home, find_home

if TYPE_CHECKING:
    from ftd.ledger.db import Ledger


def home_of(args: argparse.Namespace) -> Home:
    """The home that ``--home``, ``--config`` and the environment name."""
    return find_home(args.home, args.config)


@contextmanager
def opened(home: Home) -> Iterator[Ledger]:
    """The ledger of `home`, closed afterwards.  Raises LedgerError when it cannot be used."""
    from ftd.ledger import db

    with db.opened(home) as ledger:
        yield ledger
