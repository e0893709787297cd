"""The systemd unit that serves a home: its text, and which home a unit's text is for."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from ftd.errors import ConfigError

MARK = "# Written by 'ftd service install'; 'systemctl edit' keeps your own changes apart."
_PLAIN = re.compile(r"[\w/%.@+=:,-]+")
_STOP_S = 90  # systemd's own default

# For a system unit.  Not here, because runs would suffer: PrivateDevices, DevicePolicy and
# ProtectClock hide GPUs; ProtectHome hides data; PrivateTmp hides the device locks that other homes
# take; ProtectProc and PrivateUsers hide whose processes use a GPU; MemoryDenyWriteExecute breaks
# compiled kernels.
_SANDBOX = """
# What runs never need.
NoNewPrivileges=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
# CUDA would start this setuid program where the driver's device files are not there yet after a
# boot; within the sandbox it cannot.
ExecStartPre=-+/usr/bin/nvidia-modprobe -c 0 -u
"""


@dataclass(frozen=True)
class Unit:
    """What a unit is made for; all paths absolute."""

    home: Path
    config: Path | None
    python: Path
    user: str | None  # whose processes a system unit starts; None: a unit of the user's own
    mounts: tuple[Path, ...]  # beside the home, paths that must be mounted
    grace_s: float  # what runs have for their last checkpoint

    def text(self) -> str:
        """The unit file.  Raises ConfigError when a path cannot be written in one."""
        named = () if self.config is None else ("--config", str(self.config))
        command = (str(self.python), "-P", "-m", "ftd", "--home", str(self.home), *named)
        at_stop = ("service", "checkpoint", "--at-shutdown", *(("--system",) if self.user else ()))
        mounts = " ".join(_quoted(path) for path in (self.home, *self.mounts))
        return f"""{MARK}

[Unit]
Description=ftd: fine-tuning experiments of {_quoted(self.home)}
RequiresMountsFor={mounts}
{self._when_it_starts()}
[Service]
Type=exec
ExecStart={_command(*command, "daemon")}
# When the machine goes down, and only then, workers save their state and leave.
ExecStopPost={_command(*command, *at_stop)}
TimeoutStopSec={max(_STOP_S, math.ceil(self.grace_s) + 30)}
Restart=on-failure
RestartSec=10
# The daemon alone is stopped; its workers go on, and the next daemon adopts them.
KillMode=process
KillSignal=SIGTERM
# A worker that is killed for its memory is one worker's end, not the service's.
OOMPolicy=continue
{self._confinement()}
[Install]
WantedBy={"multi-user.target" if self.user else "default.target"}

[X-Ftd]
Home={shlex.quote(str(self.home))}
"""

    def _when_it_starts(self) -> str:
        ordered = "# Stopped before what tells us that the machine goes down.\nAfter=dbus.service\n"
        return (ordered if self.user else "") + "StartLimitIntervalSec=0\n"

    def _confinement(self) -> str:
        if self.user is None:
            return (
                "# No sandbox: a user's own would need a user namespace, which hides whose\n"
                "# processes use a GPU.\n"
            )
        return f"User={_quoted(self.user)}\n{_SANDBOX}"


def home_in(text: str) -> Path | None:
    """The home that a unit's text serves; None when it is no unit of ours."""
    lines = text.splitlines()
    if not lines or lines[0] != MARK:
        return None
    for line in lines:
        if line.startswith("Home="):
            return Path(*shlex.split(line.removeprefix("Home=")))
    return None


def _command(program: str, *words: str) -> str:
    """A command line in which systemd replaces nothing; it never does in the program's path."""
    if set(program) & set("\"'\\"):
        raise ConfigError(
            f"systemd starts no program in a place like {program}",
            fix="Install ftd into a folder without quotes and backslashes in its path",
        )
    return " ".join([_quoted(program), *(_quoted(word).replace("$", "$$") for word in words)])


def _quoted(word: str | Path) -> str:
    """A word as systemd reads it, in quotes only where it needs them."""
    text = str(word)
    if not text.isprintable():
        raise ConfigError(
            f"{text!r} cannot be named in a systemd unit", fix="Choose a path without such signs"
        )
    text = text.replace("%", "%%")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
