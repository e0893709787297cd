"""Orders made by hand, for tests of workers without a daemon."""

from __future__ import annotations

from typing import Any

from ftd.protocol import Order
from ftd.seeds import streams


def order(**changed: Any) -> Order:
    """The order of a short drill on the CPU, with fields changed."""
    fields: dict[str, Any] = {
        "run_id": 1,
        "number": 1,
        "key": "k",
        "job": "drill",
        "job_version": 1,
        "params": {"steps": 5},
        "seeds": streams(1, 0),
        "device_kind": "cpu",
        "device_id": "cpu:0",
        "numerics": "exact",
        "threads": 1,
        "inputs": {},
        "store": "/nonexistent",
        "allow_downloads": False,
        "checkpoint_every_s": 3600.0,
        "checkpoint_every_steps": 2,
    }
    return Order(**{**fields, **changed})
