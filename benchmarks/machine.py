"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform


def described() -> dict[str, str]:
    """Cores, processor, system and the versions that matter."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "system": _system(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "pydantic", "peewee", "huey", "rich")},
    }


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        return next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
            platform.machine(),
        )


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
