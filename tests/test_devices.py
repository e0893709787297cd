"""Devices: a GPU is free only if nobody uses it and its memory is explained."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.config import Config, parse
from ftd.daemon.devices import Devices
from ftd.daemon.launch import environment
from ftd.gpus import Gpu, GpuProcess, NvmlUnavailable, read_gpus, strangers, use
from tests.orders import order

MIB = 1 << 20
IDLE = Gpu("GPU-a", "H100", 80_000 * MIB, 4 * MIB, ())


def test_an_idle_gpu_is_free() -> None:
    """No process, next to no memory: free."""
    assert use(IDLE, (), 300 * MIB) == ("free", "")


@given(st.integers(301, 80_000))
def test_unexplained_memory_is_never_free(used: int) -> None:
    """Memory that no visible process explains makes a GPU unknown."""
    state, detail = use(replace(IDLE, used_bytes=used * MIB), (), 300 * MIB)
    assert state == "unknown"
    assert str(used) in detail


def test_a_strangers_gpu_is_external_even_when_idle() -> None:
    """A process that holds a GPU without using it (a notebook) still owns it; it is named."""
    mine = GpuProcess(os.getpid(), 900 * MIB)
    gpu = replace(IDLE, processes=(mine,))
    state, detail = use(gpu, strangers(gpu, []), 300 * MIB)
    assert state == "external"
    assert f"pid {os.getpid()}" in detail
    assert "900 MiB" in detail


def test_the_children_of_our_workers_are_no_strangers() -> None:
    """Everything in a worker's session is ours; processes that cannot be seen are not."""
    gpu = replace(IDLE, processes=(GpuProcess(os.getpid(), None), GpuProcess(2**22 + 1, None)))
    assert strangers(gpu, [os.getsid(0)]) == (GpuProcess(2**22 + 1, None),)


def test_a_known_gpu_that_is_away_is_missing_not_forgotten(tmp_path: Path) -> None:
    """When NVML does not answer, or lost a card, its runs wait; CPU slots stay few."""
    try:
        present = {gpu.uuid for gpu in read_gpus()}
    except NvmlUnavailable:
        present = set()
    config = parse(f'[devices]\nlock_directory = "{tmp_path}"\n', "ftd.toml")
    seen = Devices(config, {"GPU-gone": "H100"}).look({})
    (gone,) = [device for device in seen if device.id == "GPU-gone"]
    assert "GPU-gone" not in present
    assert (gone.state, gone.in_use) == ("missing", True)
    assert sum(device.kind == "cpu" for device in seen) == 1, "auto: one slot beside GPUs"


@pytest.fixture
def slots(tmp_path: Path) -> Config:
    """Two CPU slots and no GPU."""
    text = f'[devices]\ncpu_slots = 2\ngpus = "none"\nlock_directory = "{tmp_path}"\n'
    return parse(text, "ftd.toml")


def test_a_locked_slot_is_external_to_everybody_else(slots: Config) -> None:
    """Whoever holds a slot's lock has it; it is free again when the last holder is gone."""
    ours, theirs = Devices(slots, {}), Devices(slots, {})
    held = ours.lock("cpu:0")
    assert held is not None
    assert [device.state for device in theirs.look({})] == ["external", "free"]
    assert [device.state for device in ours.look({"cpu:0": None})] == ["leased", "free"]
    assert theirs.lock("cpu:0") is None
    os.close(held)
    assert [device.state for device in theirs.look({})] == ["free", "free"]


def test_a_worker_inherits_only_what_it_may() -> None:
    """Tokens and shell settings stay behind; device and threads are set."""
    inherited = {
        "PATH": "/bin",
        "HOME": "/h",
        "SECRET_TOKEN": "x",
        "PYTHONPATH": "/x",
        "LC_ALL": "C",
    }
    on_cpu = environment(inherited, order(threads=3))
    assert "SECRET_TOKEN" not in on_cpu
    assert "PYTHONPATH" not in on_cpu
    assert (on_cpu["PATH"], on_cpu["LC_ALL"]) == ("/bin", "C")
    assert (on_cpu["OMP_NUM_THREADS"], on_cpu["CUDA_VISIBLE_DEVICES"]) == ("3", "")
    on_gpu = environment(inherited, order(device_kind="gpu", device_id="GPU-a"))
    assert on_gpu["CUDA_VISIBLE_DEVICES"] == "GPU-a"
