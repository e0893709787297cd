"""How much memory a run took at most."""

from __future__ import annotations

import resource

import torch


def peak_memory_bytes(device: str) -> int:
    """Peak of this process so far: bytes allocated on a GPU, else the resident set in bytes."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
