"""What a network's numbers depend on besides its weights, said without importing torch."""

from __future__ import annotations

import importlib.metadata
import os
from functools import cache
from typing import Any

from ftd.job import Context

_CPUINFO = "/proc/cpuinfo"
_EXTENSIONS = ("avx", "amx", "fma", "f16c")  # kernels are chosen by these
_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def fingerprint(context: Context) -> dict[str, Any]:
    """JSON values that are equal where a network gives equal features bit for bit.

    On a GPU its name and libraries are asked for, which takes torch.
    """
    if context.device == "cuda":
        from jobs.train import numerics

        numerics.configure(context.numerics, context.threads)
        return numerics.fingerprint(context.numerics, context.device)
    return {
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "numerics": context.numerics,
        "device": context.device,
        "dtype": "float32",
        "threads": context.threads,
        **_processor(),
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


@cache  # reading it takes longer than looking up what is in the store
def version(package: str) -> str:
    """The installed version of a distribution."""
    return importlib.metadata.version(package)


@cache
def _processor() -> dict[str, Any]:
    """The processor's name and vector extensions."""
    found: dict[str, Any] = {}
    try:
        with open(_CPUINFO, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = (part.strip() for part in line.partition(":"))
                if name == "model name":
                    found["processor"] = value
                elif name in ("flags", "Features"):  # x86, ARM
                    found["extensions"] = sorted(
                        flag for flag in value.split() if flag.startswith(_EXTENSIONS)
                    )
                if not name and found:  # the end of the first processor
                    break
    except OSError:
        return {"processor": "unknown"}
    return found
