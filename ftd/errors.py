"""The one tree of errors: what went wrong, where, and what to do about it.

Every error a person can cause or mend derives from :class:`FtdError`; its text is one line (or a
few) that a command line can print as it is.  Nothing else is ever shown without a traceback.
"""

from __future__ import annotations


class FtdError(Exception):
    """Base of everything ftd raises on purpose.

    ``exit_code`` is what a command ends with: 1 when something failed, 2 when the input is wrong.
    """

    exit_code = 1


class InputError(FtdError):
    """What the user gave is wrong; nothing was changed.

    ``what`` says what is wrong, ``where`` names file, line and key, ``fix`` says what to do.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.fix}" if self.fix else text


class SpecError(InputError):
    """A spec does not describe an experiment."""


class ConfigError(InputError):
    """``ftd.toml`` or the home cannot be used as it is."""


class DataError(InputError):
    """Images, labels or a dataset are missing, corrupt or not what the spec says."""


class DataNotThere(DataError):
    """An input is not there at all: not mounted, or its server is away.  It may come back.

    ``source`` is the input's ``where``, as its job names it.
    """

    def __init__(self, what: str, *, source: str, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.source = source


class WeightsError(InputError):
    """Pretrained weights are missing, do not fit the network or are not safe to load."""


class UnknownName(InputError):
    """A name (experiment, run, model, dataset, ...) that nothing answers to."""


class LedgerError(FtdError):
    """The ledger cannot be used: another schema, damaged, or on an unsuitable filesystem."""


class DaemonRunning(FtdError):
    """Another daemon already serves this home."""


class ContractError(FtdError):
    """A job does not do what every job has to do."""


class StorageError(FtdError):
    """The disk is full, failing or read-only: nobody's input is wrong, trying later may help."""


def nearest(word: str, allowed: list[str]) -> str:
    """The entry of `allowed` that `word` is most like, or an empty string if it is like none."""
    import difflib

    return next(iter(difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)), "")


def closest(word: str, allowed: list[str]) -> str:
    """``Did you mean 'x'?`` for the entry of `allowed` nearest to `word`, or an empty string."""
    near = nearest(word, allowed)
    return f"Did you mean '{near}'?" if near else ""
