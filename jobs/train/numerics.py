"""What the numbers depend on besides the parameters: set it, and say what it is."""

from __future__ import annotations

import os
from typing import Any

import torch

from ftd.errors import DataError


def configure(numerics: str, threads: int) -> None:
    """Prepare torch for ``exact`` or ``fast`` numerics on `threads` CPU threads.

    Call it before CUDA is touched.  Exact: deterministic algorithms only (an operation without
    one raises, naming itself) and full float32.  Fast: whatever is quickest, TF32 included.
    """
    exact = numerics == "exact"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS: the same sums every time
    torch.set_num_threads(threads)
    # Says the same as use_deterministic_algorithms, which imports a compiler for a second first.
    torch.set_deterministic_debug_mode("error" if exact else "default")
    # Nothing here reads memory before writing it, so filling it first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not exact
    torch.backends.cudnn.deterministic = exact
    precision = "ieee" if exact else "tf32"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def check_precision(precision: str, device: str) -> None:
    """Raise DataError for a precision that `device` does not train in."""
    if precision == "float16" and device == "cpu":
        raise DataError(
            "train.precision: float16 is for GPUs, and this run is on the CPU",
            fix="Use bfloat16 or float32, or device: gpu",
        )


def fingerprint(numerics: str, device: str, precision: str = "float32") -> dict[str, Any]:
    """What a bitwise equal continuation needs: versions, device, capabilities, threads."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "numerics": numerics,
        "device": device,
        "dtype": precision,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        "onednn_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
    }
    if device == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "gpu_capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return found
