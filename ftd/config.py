"""``ftd.toml``: how this machine runs things.  What changes a result is never set here.

Every key has a default; the annotated file at the top of the source tree shows them all.  Light
commands do not import this module: it costs them pydantic.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftd import tomltext
from ftd.document import dotted
from ftd.errors import ConfigError
from ftd.explain import explain
from ftd.layout import Home
from ftd.states import Outcome

SHARED_LOCKS = (Path("/run/lock/ftd"), Path("/tmp/ftd-locks"))  # tried in this order


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Devices(Section):
    """``[devices]``: what runs may use."""

    cpu_slots: Literal["auto"] | Annotated[int, Field(ge=0, le=4096)] = Field(
        "auto", description="Runs at once on the CPU; auto: one per core."
    )
    gpus: Literal["auto", "none"] | tuple[str, ...] = Field(
        "auto", description="auto: all that NVML shows; none; or a list of UUIDs."
    )
    gpu_idle_memory_mib: int = Field(
        300, ge=0, description="Used memory that an idle GPU may show and still count as free."
    )
    lock_directory: str = Field(
        "auto", description="Where device locks are shared with other homes on this machine."
    )


class Checkpoints(Section):
    """``[checkpoints]``: how often runs save their state."""

    every_s: float = Field(60.0, gt=0, description="Seconds between two checkpoints.")
    every_steps: int | None = Field(None, ge=1, description="Also after this many steps.")


class Stop(Section):
    """``[stop]``: how runs are asked to leave."""

    grace_s: float = Field(30.0, ge=0, description="Seconds from the request to SIGKILL, at least.")


class Retries(Section):
    """``[retries]``: how often a run is tried again after each kind of end.

    A refused run (bad parameters or data) is never tried again.
    """

    failed: int = Field(1, ge=0, description="After an error in the job.")
    timed_out: int = Field(0, ge=0, description="After its time limit.")
    out_of_memory: int = Field(1, ge=0, description="After running out of memory.")
    killed: int = Field(5, ge=0, description="After a signal from somewhere.")
    lost: int = Field(20, ge=0, description="After a reboot, or when nobody saw how it ended.")
    backoff_s: float = Field(2.0, ge=0, description="Wait before the first retry; then doubled.")
    backoff_max_s: float = Field(300.0, ge=0, description="The longest wait.")

    def budget(self, outcome: Outcome) -> int:
        """How many attempts of a run may end in `outcome` and still be followed by another."""
        budgets = {
            Outcome.FAILED: self.failed,
            Outcome.TIMED_OUT: self.timed_out,
            Outcome.OUT_OF_MEMORY: self.out_of_memory,
            Outcome.KILLED: self.killed,
            Outcome.LOST: self.lost,
        }
        return budgets.get(outcome, 0)


class Breaker(Section):
    """``[breaker]``: when an experiment is held because its runs fail at once."""

    failures: int = Field(3, ge=1, description="Quick failures in a row that hold an experiment.")
    quick_s: float = Field(60.0, ge=0, description="A failure sooner than this is quick.")


class Ledger(Section):
    """``[ledger]``: copies of it, below ``backups/`` in the home."""

    backup_every_h: float = Field(
        24.0, ge=0, description="Hours between two backups of the ledger; 0: none."
    )
    backups_kept: int = Field(7, ge=1, description="The newest of them that are kept.")


class Jobs(Section):
    """``[jobs]``: how jobs are executed."""

    interpreters: tuple[str, ...] = Field(
        (), description="Python interpreters that specs may name with `python:`."
    )
    warm_start: bool = Field(
        True,
        description="Whether workers of short runs start from a process that has their libraries "
        "loaded.",
    )
    share_workers: bool = Field(
        True,
        description="Whether a worker may execute many runs, one after the other, where their job "
        "allows it.",
    )

    def allows(self, python: str) -> bool:
        """Whether specs may name the interpreter at this absolute path."""
        return python in {os.path.abspath(os.path.expanduser(one)) for one in self.interpreters}


class Daemon(Section):
    """``[daemon]``: the service itself."""

    tick_s: float = Field(1.0, gt=0, le=60, description="Seconds between two looks at the machine.")


class Config(Section):
    """All settings of a home."""

    home: str | None = Field(None, description="The home, if neither --home nor $FTD_HOME say it.")
    allow_downloads: bool = Field(False, description="Whether runs may fetch weights and data.")
    devices: Devices = Devices()
    checkpoints: Checkpoints = Checkpoints()
    stop: Stop = Stop()
    retries: Retries = Retries()
    breaker: Breaker = Breaker()
    ledger: Ledger = Ledger()
    jobs: Jobs = Jobs()
    daemon: Daemon = Daemon()


def load(home: Home) -> Config:
    """The settings that count for `home`; all defaults when there is no ``ftd.toml``.

    Raises ConfigError naming file and key, what is allowed and the closest match.
    """
    path = home.config_file()
    if path is None:
        return Config()
    return _validated(tomltext.read(path), str(path))


def parse(text: str, source: str) -> Config:
    """Settings from TOML text; `source` names it in errors.  Raises ConfigError."""
    return _validated(tomltext.parse(text, source), source)


def _validated(data: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        complaint = explain(error, data, Config)
        raise ConfigError(
            complaint.what, where=f"{source}: {dotted(complaint.path)}", fix=complaint.fix
        ) from error


def lock_directory(config: Config) -> Path:
    """The folder of device locks, made if need be; every home on the machine takes the same one.

    Raises ConfigError when the folder cannot be made or is no real folder.
    """
    if config.devices.lock_directory != "auto":
        return _shared_folder(Path(config.devices.lock_directory))
    for candidate in SHARED_LOCKS[:-1]:
        if candidate.is_dir() or os.access(candidate.parent, os.W_OK):
            return _shared_folder(candidate)
    return _shared_folder(SHARED_LOCKS[-1])


def _shared_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o1777)
        folder.chmod(0o1777)  # whatever the umask: other people's homes take locks here too
    except FileExistsError:
        pass
    except (OSError, ValueError) as error:
        raise _unusable(folder, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISDIR(folder.lstat().st_mode) or not os.access(folder, os.W_OK):
        raise _unusable(folder, "it is not a folder that everybody can write to")
    return folder


def _unusable(folder: Path, why: str) -> ConfigError:
    return ConfigError(
        f"cannot keep device locks in {folder}: {why}",
        fix="Set lock_directory below [devices] in ftd.toml",
    )
