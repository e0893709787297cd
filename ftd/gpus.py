"""What NVML says about this machine's GPUs and who uses them.  Reads only, never a setting."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ftd.errors import FtdError


class NvmlUnavailable(FtdError):
    """The driver's management library cannot be asked now; no GPU may be considered free."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that has memory on a GPU; `memory_bytes` is None where the driver hides it."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """A GPU as it is now."""

    uuid: str
    name: str
    memory_bytes: int
    used_bytes: int
    processes: tuple[GpuProcess, ...]


def read_gpus() -> list[Gpu]:
    """All GPUs with their compute and graphics processes.  Raises NvmlUnavailable."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlUnavailable(f"NVML does not answer ({error})") from error
    try:
        return [_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise NvmlUnavailable(f"NVML does not answer ({error})") from error
    finally:
        pynvml.nvmlShutdown()


def _read(nvml, index: int) -> Gpu:  # type: ignore[no-untyped-def]
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    found = {
        process.pid: process.usedGpuMemory
        for ask in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        )
        for process in ask(handle)
    }
    return Gpu(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        memory_bytes=memory.total,
        used_bytes=memory.used,
        processes=tuple(GpuProcess(pid, used) for pid, used in sorted(found.items())),
    )


def strangers(gpu: Gpu, own_sessions: Iterable[int]) -> tuple[GpuProcess, ...]:
    """The processes on a GPU that belong to none of `own_sessions` (pids of our workers)."""
    own = set(own_sessions)
    return tuple(process for process in gpu.processes if _session(process.pid) not in own)


def use(gpu: Gpu, others: tuple[GpuProcess, ...], idle_bytes: int) -> tuple[str, str]:
    """(state, detail) of a GPU that nobody of ours leases: free, external or unknown.

    Fails closed: memory that no visible process explains (containers hide theirs) is unknown.
    """
    if others:
        return "external", "; ".join(_described(process) for process in others)
    if gpu.used_bytes > idle_bytes:
        return "unknown", f"{gpu.used_bytes >> 20} MiB used by processes that cannot be seen"
    return "free", ""


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _described(process: GpuProcess) -> str:
    used = f", {process.memory_bytes >> 20} MiB" if process.memory_bytes else ""
    try:
        uid = Path(f"/proc/{process.pid}").stat().st_uid
        who = pwd.getpwuid(uid).pw_name
        command = Path(f"/proc/{process.pid}/comm").read_text().strip()
    except (OSError, KeyError):
        return f"pid {process.pid}{used}"
    return f"{who}: {command} (pid {process.pid}{used})"
