"""What a worker runs in: the variables it may inherit, versions, interpreter, machine."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

import ftd

# What a worker may inherit; the rest of an environment (tokens, shells' settings) stays behind.
KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
)
KEPT_PREFIXES = (
    "LC_", "XDG_", "TORCH_", "HF_", "ATEN_", "ONEDNN_", "DNNL_", "KMP_", "NVIDIA_", "FTD_",
)  # fmt: skip

LIBRARIES = ("torch", "torchvision", "numpy")
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn", "timm")


def inheritable(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of an `environment` that workers, and whoever describes jobs, may have."""
    return {
        name: value
        for name, value in environment.items()
        if name in KEPT or name.startswith(KEPT_PREFIXES)
    }


def library_versions() -> dict[str, str | None]:
    """``major.minor`` of the libraries whose version can change numbers; None when absent."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = ".".join(importlib.metadata.version(name).split(".")[:2])
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


@cache
def environment() -> Mapping[str, Any]:
    """JSON values, for tracing a number, in no key: versions (absent ones left out), machine.

    As they were when this process first asked: what it loaded was of these versions.
    """
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "ftd": ftd.__version__,
        "python": platform.python_version(),
        "packages": packages,
        "host": platform.node(),
        "system": platform.platform(),
    }
