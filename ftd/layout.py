"""Where things are below a home: the one place that knows file names.

HOME/ftd.toml            settings of this home (optional)
HOME/ledger.sqlite       the truth
HOME/daemon.lock         held by the one daemon; daemon.json says who
HOME/wake                a fifo that wakes the daemon
HOME/runs/r12/lock       held by the live worker of run 12
HOME/runs/r12/attempts/3/   the protocol between daemon and worker (see ftd.protocol)
HOME/jobs/               files of jobs that are not built in, by digest
HOME/store/              results shared by runs
HOME/log/daemon.jsonl    what the daemon did
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ftd import tomltext
from ftd.errors import ConfigError
from ftd.regular import full_path

SYSTEM_CONFIG = Path("/etc/ftd.toml")


@dataclass(frozen=True)
class Home:
    """One ftd installation's data: a ledger, its runs and its store."""

    root: Path
    config: Path | None = None  # an explicitly named ftd.toml

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def ledger_lock(self) -> Path:
        return self.root / "ledger.lock"

    @property
    def daemon_lock(self) -> Path:
        return self.root / "daemon.lock"

    @property
    def daemon_identity(self) -> Path:
        return self.root / "daemon.json"

    @property
    def wake(self) -> Path:
        return self.root / "wake"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def sources(self) -> Path:
        return self.root / "jobs"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def daemon_log(self) -> Path:
        return self.root / "log" / "daemon.jsonl"

    def run(self, run_id: int) -> Path:
        return self.root / "runs" / f"r{run_id}"

    def run_lock(self, run_id: int) -> Path:
        return self.run(run_id) / "lock"

    def attempt(self, run_id: int, number: int) -> Path:
        return self.run(run_id) / "attempts" / str(number)

    def attempts(self, run_id: int) -> list[int]:
        """The numbers that directories of the run's attempts have.

        The ledger may not know all of them: it may have been restored from an older backup.
        """
        try:
            names = os.listdir(self.run(run_id) / "attempts")
        except FileNotFoundError:
            return []
        return [int(name) for name in names if name.isdecimal()]

    def config_file(self) -> Path | None:
        """The ``ftd.toml`` that counts: the named one, the home's, the system's."""
        if self.config is not None:
            return self.config
        return next(
            (p for p in (self.root / "ftd.toml", SYSTEM_CONFIG) if os.path.lexists(p)), None
        )


def find_home(home: str | None, config: str | None) -> Home:
    """The home: ``--home``, ``$FTD_HOME``, ``home`` in the config file, ``~/.local/share/ftd``.

    Raises ConfigError when a named config file cannot be read.
    """
    named = full_path(config, Path.cwd()) if config else None
    if named is not None and not named.is_file():
        raise ConfigError(f"no config file at {named}", fix="Check --config")
    given = home or os.environ.get("FTD_HOME")
    if not given:
        given = _home_in(named or SYSTEM_CONFIG)
    if not given:
        data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        given = str(Path(data) / "ftd")
    return Home(full_path(given, Path.cwd()), named)


def _home_in(config: Path) -> str | None:
    if not config.exists():
        return None
    home = tomltext.read(config).get("home")
    if home is not None and not isinstance(home, str):
        raise ConfigError("home must be a path in quotes", where=str(config))
    return home
