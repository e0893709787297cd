"""What an attempt ran in: versions, interpreter, machine; for tracing a number, in no key."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import ftd

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn", "timm")


def environment() -> dict[str, Any]:
    """JSON values: ftd, python, packages (absent ones left out), host, system."""
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
