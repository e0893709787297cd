"""Asking systemd: it may be absent, and then the answer is None."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 60
SYSTEM_UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Manager:
    """The system's service manager, or the user's own."""

    system: bool

    @property
    def folder(self) -> Path:
        """Where its administrator, or the user, puts units."""
        if self.system:
            return SYSTEM_UNITS
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"

    def command(self, *words: str) -> list[str]:
        """What to type."""
        return ["systemctl", *([] if self.system else ["--user"]), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str] | None:
        """Carry it out; None when there is no systemctl here or it does not answer."""
        return _run(self.command(*words))

    def says(self, *words: str) -> str:
        """One word of answer (``active``, ``enabled``, ``stopping``), "unknown" for none."""
        done = self.run(*words)
        return (done.stdout.strip() if done else "") or "unknown"

    def going_down(self) -> bool:
        """Whether the machine, or all that the user runs, is being shut down."""
        return self.says("is-system-running") == "stopping"


def lingers(user: str) -> bool | None:
    """Whether a user's services go on without a login; None when that cannot be known."""
    done = _run(["loginctl", "show-user", user, "--property=Linger", "--value"])
    if done is not None and done.returncode == 0:
        return done.stdout.strip() == "yes"
    kept = Path("/var/lib/systemd/linger")
    return (kept / user).exists() if kept.is_dir() else None


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
