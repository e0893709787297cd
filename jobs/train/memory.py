"""Freed memory is kept for the next step instead of going back to the system.

Every step allocates the same tens of megabytes again.  glibc returns such blocks at once, and
getting them anew (the kernel clears each page) cost a CPU run up to a third of its time.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no more


def keep_freed_memory() -> None:
    """Tell the C library's allocator; one that knows no such wish is left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
